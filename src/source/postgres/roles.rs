//! Least rights: what writers and the relay need, as SQL to print or run, and the look at them before the first batch.

use super::connection::{Link, statement};
use super::failure::GRANT;
use super::names::{Names, quoted};
use super::table::{self, get};
use super::{Postgres, Table};
use crate::config::Column;
use crate::fault::Fault;

/// Writers insert and nothing else: an identity column needs no right on its sequence.
const WRITER: &str = "GRANT USAGE ON SCHEMA {schema} TO {writer};\nGRANT INSERT ON {outbox} TO {writer};\n";

/// The relay reads, marks and removes events, and owns the books beside them. It cannot insert an event or change what one says.
const RELAY: &str = "GRANT USAGE ON SCHEMA {schema} TO {relay};\nGRANT SELECT, {update}DELETE ON {outbox} TO {relay};\n\
    {on_sequence}GRANT SELECT ON {pending}, {migrations} TO {relay};\nGRANT SELECT, UPDATE ON {state} TO {relay};\n\
    GRANT SELECT, INSERT, DELETE ON {applied} TO {relay};\nGRANT SELECT, INSERT, UPDATE ON {token} TO {relay};\n\
    GRANT SELECT, INSERT, UPDATE, DELETE ON {parked}, {held} TO {relay};\nGRANT SELECT, INSERT ON {audit} TO {relay};\n";
const UPDATE: &str = "UPDATE ({sent_at_column}), ";
const IN_SCHEMA: &str = "GRANT USAGE ON SCHEMA {sequence_schema} TO {relay};\n";
const ON_SEQUENCE: &str = "GRANT SELECT ON SEQUENCE {sequence} TO {relay};\n";

/// A sequence in a default, unlike one of an identity column, is drawn from with the right of who inserts.
const DRAW: &str = "GRANT USAGE ON SEQUENCE {sequence} TO {writer};\n";

/// Each right that the relay needs, and whether it has it. The sequence may lie in another schema than the table, whose right may be
/// missing too: so it is asked for by its number.
const NEEDED: &str = "SELECT needed.what || ' on ' || needed.name, has_table_privilege(needed.name, needed.what) FROM (VALUES \
        ($1, 'SELECT'), ($1, 'DELETE'), ($3, 'SELECT'), ($3, 'UPDATE'), ($4, 'SELECT'), ($4, 'INSERT'), ($4, 'DELETE'), \
        ($5, 'SELECT'), ($5, 'INSERT'), ($5, 'UPDATE'), ($6, 'SELECT'), ($6, 'INSERT'), ($6, 'UPDATE'), ($6, 'DELETE'), \
        ($7, 'SELECT'), ($7, 'INSERT'), ($7, 'UPDATE'), ($7, 'DELETE'), ($8, 'INSERT'), ($10, 'SELECT')) AS needed (name, what) \
    UNION ALL SELECT 'UPDATE (' || $9 || ') on ' || $1, has_column_privilege($1, $9, 'UPDATE') WHERE $9 IS NOT NULL \
    UNION ALL SELECT 'SELECT on sequence ' || $2, has_sequence_privilege($11::oid, 'SELECT') WHERE $2 IS NOT NULL \
    UNION ALL SELECT 'USAGE on schema ' || quote_ident($12), has_schema_privilege($12, 'USAGE') WHERE $12 IS NOT NULL";

/// Who is to have the rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Role of the services that write events.
    pub writer: String,
    /// Role of the relay.
    pub relay: String,
}

impl Postgres {
    /// The statements that give both roles what they need.
    pub async fn grants(&self, roles: &Roles) -> Result<String, Fault> {
        let (mut link, names) = self.link().await?;
        let mut work = link.begin().await?;
        let table = table::look_up(&mut work, &names, &self.settings).await?;
        work.commit().await?;
        Ok(grants(&names, &table, roles))
    }

    /// Runs [`Postgres::grants`] in one transaction.
    pub async fn grant(&self, roles: &Roles) -> Result<(), Fault> {
        let sql = self.grants(roles).await?;
        let mut link = self.server.link().await?;
        let mut work = link.begin().await?;
        work.script(&sql).await?;
        work.commit().await
    }
}

fn grants(names: &Names, table: &Table, roles: &Roles) -> String {
    let sequence = table.sequence.as_ref();
    let (writer, relay) = (quoted(&roles.writer), quoted(&roles.relay));
    let draw = if sequence.is_some_and(|sequence| !sequence.identity) { DRAW } else { "" };
    let elsewhere = sequence.and_then(|sequence| sequence.elsewhere(names));
    let on_sequence = format!("{}{}", elsewhere.map_or("", |_| IN_SCHEMA), sequence.map_or("", |_| ON_SEQUENCE));
    let update = names.columns.of(Column::SentAt).map_or("", |_| UPDATE);
    let template = format!("{WRITER}{draw}{}", RELAY.replace("{on_sequence}", &on_sequence).replace("{update}", update));
    let sequence = sequence.map(|sequence| sequence.name.as_str()).unwrap_or_default();
    let schema = elsewhere.map(quoted).unwrap_or_default();
    let values = [("writer", writer.as_str()), ("relay", &relay), ("sequence", sequence), ("sequence_schema", &schema)];
    names.sql_with(&template, &values).text().to_owned()
}

/// Names every right that is missing.
pub(super) async fn check(link: &mut Link, names: &Names, table: &Table) -> Result<(), Fault> {
    let needed = needed(link, names, table).await?;
    let missing: Vec<String> = needed.into_iter().filter(|(_, had)| !had).map(|(what, _)| what).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Fault::Refused { detail: format!("the relay's role lacks {}", missing.join(", ")), remedy: GRANT.into() })
}

/// Every right that the relay needs, and whether our role has it.
pub(super) async fn needed(link: &mut Link, names: &Names, table: &Table) -> Result<Vec<(String, bool)>, Fault> {
    let drawn = table.sequence.as_ref();
    let (sequence, number) = (drawn.map(|sequence| sequence.name.clone()), drawn.map(|sequence| sequence.oid));
    let elsewhere = drawn.and_then(|sequence| sequence.elsewhere(names)).map(str::to_owned);
    let query = statement(&names.sql(NEEDED))
        .bind(names.in_schema(&names.table))
        .bind(sequence)
        .bind(names.in_schema("outboxd_state"))
        .bind(names.in_schema("outboxd_applied"))
        .bind(names.in_schema("outboxd_token"))
        .bind(names.in_schema("outboxd_parked"))
        .bind(names.in_schema("outboxd_held"))
        .bind(names.in_schema("outboxd_audit"))
        .bind(names.columns.of(Column::SentAt).map(str::to_owned))
        .bind(names.in_schema("outboxd_migrations"))
        .bind(number)
        .bind(elsewhere);
    let mut work = link.begin().await?;
    let rows = work.rows(query).await?;
    work.commit().await?;
    rows.iter().map(|row| Ok((get(row, 0, "what")?, get(row, 1, "had")?))).collect()
}
