//! The numbered migrations, which steps of them a file still needs, and running those.

use super::Sqlite;
use super::connection::{Link, Work, get, statement};
use super::names::{Names, literal};
use super::settings::Settings;
use super::{schema, table};
use crate::fault::Fault;
use crate::source::desk::Step;
use crate::source::migrations::Migration;

const HAS_MIGRATIONS: &str = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'outboxd_migrations'";
/// Scope: empty for the relay's own tables, else the table of events. A second outbox in a file needs only its own part.
const CREATE_MIGRATIONS: &str = "CREATE TABLE outboxd_migrations (version INTEGER NOT NULL, scope TEXT NOT NULL, title TEXT NOT NULL, \
    applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), PRIMARY KEY (version, scope));\n";
const RECORDED: &str = "SELECT version FROM outboxd_migrations WHERE scope = ?1 COLLATE NOCASE";
const RECORD: &str = "INSERT INTO outboxd_migrations (version, scope, title) VALUES ";

/// All of them, in order; the folders of all databases march in step.
pub(super) const MIGRATIONS: [Migration; 1] =
    [Migration { version: 1, title: "outbox", text: include_str!("../../../migrations/sqlite/0001_outbox.sql") }];

/// What is there already.
#[derive(Default)]
struct Found {
    /// Whether the table of migrations is.
    recorded: bool,
    /// Migrations of the relay's own tables.
    relay: Vec<i32>,
    /// Migrations of this table of events.
    table: Vec<i32>,
    /// Whether the table of events is.
    table_exists: bool,
    /// Whether the state row is.
    known: bool,
}

impl Sqlite {
    /// What [`Sqlite::migrate`] would run, in order; nothing when all is there.
    pub async fn plan(&self) -> Result<Vec<Step>, Fault> {
        if !self.settings.file.exists() {
            let steps = steps(&self.names, &self.settings, &Found::default(), &self.settings.file.display().to_string())?;
            return Ok([self.file_step()].into_iter().chain(steps).collect());
        }
        let mut link = self.place.link();
        let mut work = link.read().await?;
        let found = look(&mut work, &self.names, &self.settings).await?;
        work.commit().await?;
        steps(&self.names, &self.settings, &found, &self.place.address()?)
    }

    /// Creates what is missing, the file too, each step in a transaction of its own, and returns what it did.
    pub async fn migrate(&self) -> Result<Vec<Step>, Fault> {
        let mut done = Vec::new();
        if self.place.create().await? {
            done.push(self.file_step());
        }
        let mut link = self.place.link();
        while let Some(step) = self.next(&mut link).await? {
            done.push(step);
        }
        Ok(done)
    }

    fn file_step(&self) -> Step {
        let title = format!("file {}, in WAL mode", self.settings.file.display());
        Step { title, sql: "PRAGMA journal_mode = WAL;".into() }
    }

    /// Runs the first step that is left, if any. What is left is looked up as the only writer: somebody else may have run it.
    async fn next(&self, link: &mut Link) -> Result<Option<Step>, Fault> {
        let mut work = link.write().await?;
        let found = look(&mut work, &self.names, &self.settings).await?;
        let step = steps(&self.names, &self.settings, &found, &self.place.address()?)?.into_iter().next();
        if let Some(step) = &step {
            work.script(&step.sql).await?;
        }
        work.commit().await?;
        Ok(step)
    }
}

/// Looks at what is there, and refuses a table that cannot be relayed.
async fn look(work: &mut Work<'_>, names: &Names, settings: &Settings) -> Result<Found, Fault> {
    let mut found = Found { table_exists: table::exists(work, names).await?, ..Found::default() };
    if found.table_exists {
        table::check(work, names).await?;
    }
    found.recorded = work.row(statement(&names.sql(HAS_MIGRATIONS))).await?.is_some();
    if found.recorded {
        found.relay = versions(work, names, "").await?;
        found.table = versions(work, names, &names.table).await?;
    }
    found.known = !found.relay.is_empty() && schema::known(work, names, settings).await?;
    Ok(found)
}

fn steps(names: &Names, settings: &Settings, found: &Found, address: &str) -> Result<Vec<Step>, Fault> {
    let mut steps: Vec<Step> = MIGRATIONS.iter().filter_map(|migration| step(migration, names, found)).collect();
    if !found.recorded
        && let Some(first) = steps.first_mut()
    {
        first.sql.insert_str(0, CREATE_MIGRATIONS);
    }
    if !found.known {
        steps.push(schema::state_step(names, settings, address)?);
    }
    Ok(steps)
}

/// The statements of one migration that are missing: the relay's part, the table's part.
fn step(migration: &Migration, names: &Names, found: &Found) -> Option<Step> {
    let mut sql = String::new();
    let mut add = |template: &str, scope: &str| {
        sql += names.sql(template).text();
        sql += &format!("{RECORD}({}, {}, {});\n", migration.version, literal(scope), literal(migration.title));
    };
    if !found.relay.contains(&migration.version) {
        add(migration.part("relay"), "");
    }
    if !found.table.contains(&migration.version) {
        let create = if found.table_exists { "" } else { migration.part("table") };
        add(&format!("{create}{}", migration.part("outbox")), &names.table);
    }
    (!sql.is_empty()).then(|| Step { title: format!("{:04} {}", migration.version, migration.title), sql })
}

async fn versions(work: &mut Work<'_>, names: &Names, scope: &str) -> Result<Vec<i32>, Fault> {
    let rows = work.rows(statement(&names.sql(RECORDED)).bind(scope)).await?;
    rows.iter().map(|row| get(row, 0, "version")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_its_parts_and_no_placeholder_is_left() {
        let names = Names { table: "t".into() };
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, at + 1);
            for part in ["relay", "table", "outbox"] {
                let sql = names.sql(migration.part(part));
                assert!(sql.text().contains("CREATE "), "{part}: {}", sql.text());
                assert!(!sql.text().replace("'{}'", "").replace("{\"name\"", "").contains('{'), "{part}: {}", sql.text());
            }
        }
    }
}
