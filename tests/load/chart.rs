//! Line plots as SVG.

use std::fmt::Write as _;

use crate::figures::show;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;

/// The palette of Okabe and Ito, which colour-blind readers can distinguish.
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// The scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    Logarithmic,
}

/// A plot of several lines over one axis.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    title: String,
    axes: [Axis; 2],
    lines: Vec<(String, Vec<(f64, f64)>)>,
}

#[derive(Debug, Clone)]
struct Axis {
    label: String,
    scale: Scale,
}

impl Chart {
    /// `across` has the label and the scale of the horizontal axis, `up` those of the vertical one.
    pub(crate) fn new(title: &str, across: (&str, Scale), up: (&str, Scale)) -> Self {
        let axes = [across, up].map(|(label, scale)| Axis { label: label.to_owned(), scale });
        Self { title: title.to_owned(), axes, lines: Vec::new() }
    }

    /// Adds a line, without the points that an axis cannot show.
    pub(crate) fn line(&mut self, name: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let [across, up] = [self.axes[0].scale, self.axes[1].scale];
        let points = points.into_iter().filter(|(x, y)| across.shows(*x) && up.shows(*y));
        self.lines.push((name.to_owned(), points.collect()));
    }

    pub(crate) fn svg(&self) -> String {
        let values = |axis: usize| {
            let points = self.lines.iter().flat_map(|(_, points)| points);
            points.map(move |(x, y)| if axis == 0 { *x } else { *y })
        };
        let [across, up] = [0, 1].map(|axis| Ticks::of(values(axis), self.axes[axis].scale));
        let x = |value| LEFT + across.position(value) * (WIDTH - LEFT - RIGHT);
        let y = |value| HEIGHT - BOTTOM - up.position(value) * (HEIGHT - TOP - BOTTOM);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(
            &mut svg,
            (LEFT, 24.0),
            "start",
            &format!("<tspan font-size=\"15\">{}</tspan>", escape(&self.title)),
        );
        for tick in &across.labelled {
            let at = x(*tick);
            rule(&mut svg, (at, TOP), (at, bottom));
            text(&mut svg, (at, bottom + 18.0), "middle", &show(*tick));
        }
        for tick in &up.labelled {
            let at = y(*tick);
            rule(&mut svg, (LEFT, at), (right, at));
            text(&mut svg, (LEFT - 8.0, at + 4.0), "end", &show(*tick));
        }
        let middle = f64::midpoint(LEFT, right);
        text(&mut svg, (middle, HEIGHT - 12.0), "middle", &escape(&self.axes[0].label));
        text(&mut svg, (LEFT, TOP - 6.0), "end", &escape(&self.axes[1].label));
        for (index, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let path: Vec<String> =
                points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            );
            // Lines with few points also show the points.
            if points.len() <= 40 {
                for point in path {
                    let (px, py) = point.split_once(',').expect("written above");
                    let _ = writeln!(
                        svg,
                        "<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>"
                    );
                }
            }
            // The entry of the line in the legend, right of the plot.
            let place = TOP + 14.0 + 18.0 * f64::from(u16::try_from(index).unwrap_or(0));
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
                right + 12.0,
                place - 9.0
            );
            text(&mut svg, (right + 28.0, place), "start", &escape(name));
        }
        svg + "</svg>\n"
    }
}

impl Scale {
    /// False for values that have no position on the axis.
    fn shows(self, value: f64) -> bool {
        value.is_finite() && (self == Self::Linear || value > 0.0)
    }
}

/// The range of an axis, and its labelled values.
struct Ticks {
    scale: Scale,
    /// The ends of the axis; on a logarithmic scale, the logarithms of its ends.
    low: f64,
    high: f64,
    labelled: Vec<f64>,
}

impl Ticks {
    fn of(values: impl Iterator<Item = f64> + Clone, scale: Scale) -> Self {
        let most = values.clone().fold(f64::MIN, f64::max);
        let least = values.fold(f64::MAX, f64::min);
        match scale {
            Scale::Linear => Self::linear(if most > 0.0 { most } else { 1.0 }),
            Scale::Logarithmic if most > 0.0 => Self::logarithmic(least, most),
            Scale::Logarithmic => Self::logarithmic(1.0, 10.0),
        }
    }

    fn linear(most: f64) -> Self {
        let rough = most / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
        let step = step.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power);
        // A step is at least a fifth of the maximum, so eight candidates are enough.
        let labelled: Vec<f64> =
            (0..8).map(|n| f64::from(n) * step).take_while(|at| *at < most + step).collect();
        Self {
            scale: Scale::Linear,
            low: 0.0,
            high: labelled.last().copied().unwrap_or(most),
            labelled,
        }
    }

    fn logarithmic(least: f64, most: f64) -> Self {
        let (low, high) =
            (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
        let labelled = (0_u8..)
            .map(|n| low + f64::from(n))
            .take_while(|at| *at <= high)
            .map(|at| 10_f64.powf(at));
        let labelled = labelled.collect();
        Self { scale: Scale::Logarithmic, low, high, labelled }
    }

    /// Maps a value to its position on the axis, from 0 to 1.
    fn position(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Linear { value } else { value.log10() };
        (value - self.low) / (self.high - self.low)
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn rule(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_that_cover_the_values() {
        let ticks = Ticks::of([3.0, 47.0].into_iter(), Scale::Linear);
        assert_eq!(ticks.labelled, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        let ticks = Ticks::of([3.0, 470.0].into_iter(), Scale::Logarithmic);
        let expected = [1.0, 10.0, 100.0, 1_000.0];
        assert!(ticks.labelled.iter().zip(expected).all(|(is, was)| (is / was - 1.0).abs() < 1e-9));
        assert!((ticks.position(1_000.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn points_outside_the_scale_are_left_out() {
        let mut chart = Chart::new("a < b", ("n", Scale::Logarithmic), ("ms", Scale::Linear));
        chart.line("p99", [(0.0, 1.0), (10.0, 2.0), (100.0, f64::NAN)]);
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("a &lt; b") && svg.contains(">p99<"));
    }
}
