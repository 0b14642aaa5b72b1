//! What fills the application's ports. A port's file and its adapter's file have the same name.

pub mod socketio;
