//! Inserts one event, as a service would.

use super::Sqlite;
use super::connection::{get, statement};
use super::failure::unreadable;
use crate::event::Fingerprint;
use crate::fault::Fault;
use crate::source::desk::{Insert, Inserted};

const INSERT: &str = "INSERT INTO {outbox} (id, topic, key, type, payload, headers) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
    RETURNING seq, {micros created_at}";

impl Sqlite {
    /// Inserts one event.
    pub async fn insert(&self, event: &Insert) -> Result<Inserted, Fault> {
        let id = event.id.to_string();
        let insert = statement(&self.names.sql(INSERT))
            .bind(&id)
            .bind(&event.topic)
            .bind(&event.key)
            .bind(&event.kind)
            .bind(&event.payload)
            .bind(&event.headers);
        let mut link = self.place.link();
        let mut work = link.write().await?;
        let row = work.row(insert).await?.ok_or_else(|| unreadable("seq"))?;
        work.commit().await?;
        let (seq, created_at_us) = (get(&row, 0, "seq")?, get(&row, 1, "created_at")?);
        Ok(Inserted { seq: Some(seq), id: Some(id), fingerprint: Some(Fingerprint::of(event.id)), created_at_us })
    }
}
