use async_trait::async_trait;

use super::InMemoryStore;
use crate::ports::{PortError, Revocation, RevocationCursor, Revocations};

#[async_trait]
impl Revocations for InMemoryStore {
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError> {
        let Revocation { owner, issued_before } = revocation;
        let mut content = self.shared.content.lock();
        content.last_revocation += 1;
        let number = content.last_revocation;
        let known = content.revocations.get(owner).map(|(_, instant)| *instant);
        let issued_before = known.map_or(*issued_before, |known| known.max(*issued_before));
        content.revocations.insert(owner.clone(), (number, issued_before));
        Ok(Revocation { owner: owner.clone(), issued_before })
    }

    async fn since(
        &self,
        cursor: Option<RevocationCursor>,
    ) -> Result<(Vec<Revocation>, RevocationCursor), PortError> {
        let content = self.shared.content.lock();
        let after = cursor.map_or(0, |RevocationCursor(number)| number);
        let new = content.revocations.iter().filter(|(_, (number, _))| *number > after);
        let new = new.map(|(owner, (_, issued_before))| Revocation {
            owner: owner.clone(),
            issued_before: *issued_before,
        });
        Ok((new.collect(), RevocationCursor(content.last_revocation)))
    }
}
