//! The numbered migrations, which steps of them a database still needs, and running those.

use super::columns::Columns;
use super::connection::{Link, Work, statement};
use super::failure::MIGRATE;
use super::names::{Names, literal};
use super::settings::Settings;
use super::table::{self, get};
use super::{Postgres, schema, view};
use crate::fault::Fault;
use crate::source::desk::Step;
use crate::source::migrations::Migration;

/// Where the outbox is or will be: the table's schema, the configured one, or the first of the search path.
const PLACE: &str = "SELECT coalesce(n.nspname::text, $2, current_schema()::text), coalesce(c.relname::text, $3), c.oid IS NOT NULL, \
    EXISTS (SELECT FROM pg_namespace m WHERE m.nspname = coalesce(n.nspname::text, $2, current_schema()::text)) \
    FROM (SELECT to_regclass($1) AS oid) asked LEFT JOIN pg_class c ON c.oid = asked.oid \
    LEFT JOIN pg_namespace n ON n.oid = c.relnamespace";

/// One migration at a time in a database. The lock goes with the transaction, so that a pooler cannot keep it.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('outboxd migrate'))";

const HAS_MIGRATIONS: &str = "SELECT to_regclass($1) IS NOT NULL";
/// Scope: empty for the relay's own tables, else the table of events. A second outbox in a schema needs only its own part.
const CREATE_MIGRATIONS: &str = "CREATE TABLE {migrations} (version int NOT NULL, scope text NOT NULL, title text NOT NULL, \
    applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (version, scope));\n";
const RECORDED: &str = "SELECT version FROM {migrations} WHERE scope = $1";
const RECORD: &str = "INSERT INTO {migrations} (version, scope, title) VALUES ({version}, {scope}, {title});\n";

/// All of them, in order; the folders of all databases march in step.
pub(super) const MIGRATIONS: [Migration; 1] =
    [Migration { version: 1, title: "outbox", text: include_str!("../../../migrations/postgres/0001_outbox.sql") }];

/// Where an outbox is or will be.
pub(super) struct Place {
    pub(super) names: Names,
    pub(super) table_exists: bool,
}

impl Postgres {
    /// What [`Postgres::migrate`] would run, in order; nothing when all is there.
    pub async fn plan(&self) -> Result<Vec<Step>, Fault> {
        let mut link = self.server.link().await?;
        let mut work = link.begin().await?;
        let steps = steps(&mut work, &self.settings).await?;
        work.commit().await?;
        Ok(steps)
    }

    /// Creates what is missing, each step in a transaction of its own, and returns what it did.
    pub async fn migrate(&self) -> Result<Vec<Step>, Fault> {
        let mut link = self.server.link().await?;
        let mut done = Vec::new();
        while let Some(step) = next(&mut link, &self.settings).await? {
            done.push(step);
        }
        Ok(done)
    }
}

/// Runs the first step that is left, if any. What is left is looked up under the lock: somebody else may have run it.
async fn next(link: &mut Link, settings: &Settings) -> Result<Option<Step>, Fault> {
    let mut work = link.begin().await?;
    work.row(sqlx::query(LOCK).persistent(false)).await?;
    let step = steps(&mut work, settings).await?.into_iter().next();
    if let Some(step) = &step {
        work.script(&step.sql).await?;
    }
    work.commit().await?;
    Ok(step)
}

async fn steps(work: &mut Work<'_>, settings: &Settings) -> Result<Vec<Step>, Fault> {
    let place = place(work, settings).await?;
    let names = &place.names;
    let columns = columns(work, &place, settings).await?;
    let exists = sqlx::query(HAS_MIGRATIONS).persistent(false).bind(names.in_schema("outboxd_migrations"));
    let recorded = work.row(exists).await?.map_or(Ok(false), |row| get(&row, 0, "exists"))?;
    let (relay, table) = match recorded {
        true => (versions(work, names, "").await?, versions(work, names, &names.table).await?),
        false => (Vec::new(), Vec::new()),
    };
    let mut steps: Vec<Step> = Vec::new();
    for migration in &MIGRATIONS {
        let missing = [!relay.contains(&migration.version), !table.contains(&migration.version)];
        steps.extend(step(migration, missing, &place, &columns));
    }
    if !recorded && let Some(first) = steps.first_mut() {
        first.sql.insert_str(0, names.sql(CREATE_MIGRATIONS).text());
    }
    // where it is not made with the table
    if place.table_exists && table.len() == MIGRATIONS.len() {
        let newest = &MIGRATIONS[MIGRATIONS.len() - 1];
        steps.extend(view::step(work, names, &columns, newest.part("outbox")).await?);
    }
    let fresh = relay.is_empty();
    steps.extend(schema::state_step(work, names, settings, fresh).await?);
    Ok(steps)
}

/// The columns of a table that is there and fits, or those that it will have. A table of one's own is never created.
async fn columns(work: &mut Work<'_>, place: &Place, settings: &Settings) -> Result<Columns, Fault> {
    if place.table_exists {
        return Ok(table::look_up(work, &place.names, settings).await?.columns);
    }
    if settings.outbox.columns.are_standard() {
        return Ok(Columns::standard());
    }
    let detail = format!("table {} is not there, and with outbox.columns it is yours to create", place.names.shown());
    Err(Fault::Misconfigured { detail, remedy: "Create it, or correct outbox.table; without outbox.columns, migrate does".into() })
}

/// The statements of one migration that are missing: the relay's part, the table's part.
fn step(migration: &Migration, [relay, table]: [bool; 2], place: &Place, columns: &Columns) -> Option<Step> {
    let mut sql = String::new();
    let mut add = |template: &str, scope: &str| {
        let version = migration.version.to_string();
        let record = [("version", version.as_str()), ("scope", &literal(scope)), ("title", &literal(migration.title))];
        sql += place.names.sql(&columns.expand(template)).text();
        sql += place.names.sql_with(RECORD, &record).text();
    };
    if relay {
        add(migration.part("relay"), "");
    }
    if table {
        let create = if place.table_exists { "" } else { migration.part("table") };
        add(create, &place.names.table);
        sql += &view::create(&place.names, columns, migration.part("outbox"));
    }
    (!sql.is_empty()).then(|| Step { title: format!("{:04} {}", migration.version, migration.title), sql })
}

async fn versions(work: &mut Work<'_>, names: &Names, scope: &str) -> Result<Vec<i32>, Fault> {
    let rows = work.rows(statement(&names.sql(RECORDED)).bind(scope)).await?;
    rows.iter().map(|row| get(row, 0, "version")).collect()
}

pub(super) async fn place(work: &mut Work<'_>, settings: &Settings) -> Result<Place, Fault> {
    let asked = settings.quoted_table();
    let query =
        sqlx::query(PLACE).persistent(false).bind(asked).bind(&settings.outbox.table.schema).bind(&settings.outbox.table.table);
    let row = work.row(query).await?.ok_or_else(|| no_schema(settings))?;
    let schema: Option<String> = get(&row, 0, "nspname")?;
    match schema {
        Some(schema) if get(&row, 3, "exists")? => {
            let names = Names { schema, table: get(&row, 1, "relname")?, columns: settings.outbox.columns.clone() };
            Ok(Place { names, table_exists: get(&row, 2, "exists")? })
        }
        Some(_) | None => Err(no_schema(settings)),
    }
}

fn no_schema(settings: &Settings) -> Fault {
    let detail = match &settings.outbox.table.schema {
        Some(schema) => format!("schema {schema} is not there"),
        None => "the search path leads to no schema".into(),
    };
    Fault::Misconfigured { detail, remedy: format!("Create it, or correct outbox.table. {MIGRATE} then") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_its_parts_and_no_placeholder_is_left() {
        let names = Names { schema: "s".into(), table: "t".into(), columns: Default::default() };
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, at + 1);
            for part in ["relay", "table", "outbox"] {
                let sql = names.sql(&Columns::standard().expand(migration.part(part)));
                assert!(sql.text().contains("\"s\"."), "{part}: {}", sql.text());
                assert!(!sql.text().replace("'{}'", "").replace("{\"name\"", "").contains('{'), "{part}: {}", sql.text());
            }
        }
    }
}
