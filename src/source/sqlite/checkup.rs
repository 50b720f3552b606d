//! What `check` looks at in the file. Nothing is changed: that it may be written is told by a transaction that writes nothing.
//!
//! Each question is a transaction of its own, and the answer to each is kept as it came, a fault where there is none.

use sqlx::sqlite::SqliteRow;

use super::advice::JOURNAL_MODE;
use super::connection::{Link, Statement, get, statement};
use super::names::Names;
use super::standing::pins;
use super::{Sqlite, schema, table};
use crate::fault::Fault;
use crate::source::desk::{Acceptance, Aside, Obstacle, Row, TopicInUse};

/// Which index the relay reads by is for SQLite to say.
const PLAN: &str = "EXPLAIN QUERY PLAN SELECT o.seq FROM {outbox} o WHERE o.sent_at IS NULL ORDER BY o.seq LIMIT 1";
const CREATE_UNSENT: &str = "CREATE INDEX {unsent_index} ON {outbox} (seq) WHERE sent_at IS NULL;";
const TRIGGERS: &str = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name";
const ROW: &str = "SELECT s.table_name, s.delivery, s.halted_code, s.halted_evidence, s.paused_by, s.paused_reason, \
    CASE WHEN s.lease_until > {now} THEN s.lease_instance END, s.pins FROM outboxd_state s WHERE s.name = ?1";
const PARKED: &str = "SELECT count(*) FROM outboxd_parked WHERE name = ?1";
const HELD: &str = "SELECT topic, code FROM outboxd_held WHERE name = ?1 ORDER BY topic LIMIT 20";
const NEIGHBOURS: &str = "SELECT name FROM outboxd_state WHERE name <> ?1 ORDER BY name LIMIT 20";
/// Topics of the first unsent rows, one more than are looked at: a look, not a census.
const TOPICS: &str = "SELECT topic, max(key IS NULL) FROM (SELECT topic, key FROM {outbox} WHERE sent_at IS NULL ORDER BY seq LIMIT 10000) \
    WHERE topic IS NOT NULL GROUP BY topic ORDER BY topic LIMIT 101";

/// The file as `check` found it, each question with its own answer.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// The table's name.
    pub table: String,
    /// Journal mode of the file, in small letters.
    pub journal_mode: String,
    /// Whether we may write.
    pub writing: Result<(), Fault>,
    /// Whether there is a table that can be relayed.
    pub fit: Result<(), Fault>,
    /// Triggers that fire before a row is updated or deleted.
    pub triggers: Result<Vec<Obstacle>, Fault>,
    /// The index that gives the unsent rows in order; nothing where all rows are walked over.
    pub unsent_index: Result<Option<String>, Fault>,
    /// The statement that creates one.
    pub create_unsent: String,
    /// Whether the schema is of a version that this binary works with.
    pub schema: Result<(), Fault>,
    /// The outbox's row; nothing when there is none.
    pub row: Result<Option<Row>, Fault>,
    /// Which paths are accepted.
    pub acceptance: Result<Acceptance, Fault>,
    /// What is set aside.
    pub aside: Result<Aside, Fault>,
    /// Names of the other outboxes of this file.
    pub neighbours: Result<Vec<String>, Fault>,
    /// Topics that unsent rows name.
    pub topics: Result<Vec<TopicInUse>, Fault>,
}

impl Sqlite {
    /// Looks at everything; changes nothing. Fails only when the file cannot be read at all.
    pub async fn checkup(&self) -> Result<Checkup, Fault> {
        let (mut link, names, name) = (self.place.link(), &self.names, self.settings.name());
        Ok(Checkup {
            table: names.table.clone(),
            journal_mode: journal_mode(&mut link, names).await?,
            writing: writing(&mut link).await,
            fit: fit(&mut link, names).await,
            triggers: triggers(&mut link, names).await,
            unsent_index: unsent_index(&mut link, names).await,
            create_unsent: names.sql(CREATE_UNSENT).text().to_owned(),
            schema: self.version(&mut link).await,
            row: row(&mut link, names, name).await,
            acceptance: self.acceptance().await,
            aside: aside(&mut link, names, name).await,
            neighbours: neighbours(&mut link, names, name).await,
            topics: topics(&mut link, names).await,
        })
    }

    async fn version(&self, link: &mut Link) -> Result<(), Fault> {
        let mut work = link.read().await?;
        schema::version(&mut work, &self.names, &self.settings).await?;
        work.commit().await
    }
}

async fn journal_mode(link: &mut Link, names: &Names) -> Result<String, Fault> {
    let rows = all(link, statement(&names.sql(JOURNAL_MODE))).await?;
    let mode: String = rows.first().map_or(Ok(String::new()), |row| get(row, 0, "journal_mode"))?;
    Ok(mode.to_lowercase())
}

/// As the only writer for a moment, as the relay is for each mark.
async fn writing(link: &mut Link) -> Result<(), Fault> {
    link.write().await?.commit().await
}

async fn fit(link: &mut Link, names: &Names) -> Result<(), Fault> {
    let mut work = link.read().await?;
    table::check(&mut work, names).await?;
    work.commit().await
}

async fn triggers(link: &mut Link, names: &Names) -> Result<Vec<Obstacle>, Fault> {
    let rows = all(link, statement(&names.sql(TRIGGERS)).bind(names.table.clone())).await?;
    let mut found = Vec::new();
    for row in &rows {
        found.extend(obstacle(get(row, 0, "name")?, get(row, 1, "sql")?));
    }
    Ok(found)
}

/// A trigger fires BEFORE where it does not say AFTER. Its event is the first of the three words, which no bare name can be.
fn obstacle(name: String, sql: &str) -> Option<Obstacle> {
    let words = table::bare_words(sql);
    let at = words.iter().position(|word| ["INSERT", "UPDATE", "DELETE"].contains(&word.as_str()))?;
    let (on_mark, on_delete) = (words[at] == "UPDATE", words[at] == "DELETE");
    let after = at > 0 && words[at - 1] == "AFTER";
    (!after && (on_mark || on_delete)).then_some(Obstacle { name, on_mark, on_delete })
}

async fn unsent_index(link: &mut Link, names: &Names) -> Result<Option<String>, Fault> {
    let rows = all(link, statement(&names.sql(PLAN))).await?;
    let steps = rows.iter().map(|row| get(row, 3, "detail")).collect::<Result<Vec<String>, Fault>>()?;
    Ok(steps.iter().find_map(|step| used_index(step)).map(str::to_owned))
}

/// The name in `SCAN o USING COVERING INDEX name (…)`.
fn used_index(step: &str) -> Option<&str> {
    let (_, name) = step.split_once(" INDEX ")?;
    Some(name.rsplit_once(" (").map_or(name, |(name, _)| name))
}

async fn row(link: &mut Link, names: &Names, name: &str) -> Result<Option<Row>, Fault> {
    let rows = all(link, statement(&names.sql(ROW)).bind(name.to_owned())).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let pair = |first: Option<String>, second: Option<String>| first.map(|first| (first, second.unwrap_or_default()));
    Ok(Some(Row {
        table: get(row, 0, "table_name")?,
        delivery: get(row, 1, "delivery")?,
        halted: pair(get(row, 2, "halted_code")?, get(row, 3, "halted_evidence")?),
        paused: pair(get(row, 4, "paused_by")?, get(row, 5, "paused_reason")?),
        owner: get(row, 6, "lease_instance")?,
        pins: pins(get(row, 7, "pins")?)?,
    }))
}

async fn aside(link: &mut Link, names: &Names, name: &str) -> Result<Aside, Fault> {
    let parked = all(link, statement(&names.sql(PARKED)).bind(name.to_owned())).await?;
    let held = all(link, statement(&names.sql(HELD)).bind(name.to_owned())).await?;
    Ok(Aside {
        parked: parked.first().map_or(Ok(0), |row| get(row, 0, "count"))?,
        held: held.iter().map(|row| Ok((get(row, 0, "topic")?, get(row, 1, "code")?))).collect::<Result<_, Fault>>()?,
    })
}

async fn neighbours(link: &mut Link, names: &Names, name: &str) -> Result<Vec<String>, Fault> {
    let rows = all(link, statement(&names.sql(NEIGHBOURS)).bind(name.to_owned())).await?;
    rows.iter().map(|row| get(row, 0, "name")).collect()
}

async fn topics(link: &mut Link, names: &Names) -> Result<Vec<TopicInUse>, Fault> {
    let rows = all(link, statement(&names.sql(TOPICS))).await?;
    rows.iter().map(|row| Ok(TopicInUse { topic: get(row, 0, "topic")?, without_key: get(row, 1, "without_key")? })).collect()
}

async fn all(link: &mut Link, query: Statement<'_>) -> Result<Vec<SqliteRow>, Fault> {
    let mut work = link.read().await?;
    let rows = work.rows(query).await?;
    work.commit().await?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_that_come_before_a_mark_or_a_removal_are_told() {
        let found = |sql: &str| obstacle("t".into(), sql).map(|found| (found.on_mark, found.on_delete));
        for (sql, expected) in [
            ("CREATE TRIGGER t BEFORE UPDATE ON outbox BEGIN SELECT RAISE(IGNORE); END", Some((true, false))),
            ("create trigger \"after\" /* AFTER */ delete on outbox begin select 1; end", Some((false, true))),
            ("CREATE TRIGGER [INSERT] UPDATE OF sent_at ON outbox BEGIN DELETE FROM x; END", Some((true, false))),
            ("CREATE TRIGGER t AFTER UPDATE ON outbox BEGIN SELECT 1; END", None),
            ("CREATE TRIGGER t BEFORE INSERT ON outbox BEGIN UPDATE x SET a = 1; END", None),
        ] {
            assert_eq!(found(sql), expected, "{sql}");
        }
    }

    #[test]
    fn the_index_is_the_one_that_the_plan_names() {
        assert_eq!(used_index("SCAN o USING INDEX outbox_unsent"), Some("outbox_unsent"));
        assert_eq!(used_index("SEARCH o USING COVERING INDEX by sent (sent_at=?)"), Some("by sent"));
        assert_eq!(used_index("SCAN o"), None);
        assert_eq!(used_index("SEARCH o USING INTEGER PRIMARY KEY (rowid>?)"), None);
    }
}
