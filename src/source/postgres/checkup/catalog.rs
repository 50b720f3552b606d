//! How the table is made, what stands in the way of reading and marking it, and what was done to it.

use sqlx::postgres::PgRow;
use sqlx::postgres::types::Oid;

use super::{all, ask, one};
use crate::config::Column;
use crate::fault::Fault;
use crate::source::desk::Obstacle;
use crate::source::postgres::connection::Link;
use crate::source::postgres::indexes::{self, Index};
use crate::source::postgres::names::Names;
use crate::source::postgres::table::get;

/// `row_security_active` says whether the policies apply to our role.
const TABLE: &str = "SELECT c.oid, c.relkind::text, c.relpersistence::text, \
    c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhparent, i.inhrelid)) AND NOT c.relispartition, \
    row_security_active(c.oid), EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srrelid = c.oid), \
    EXISTS (SELECT FROM unnest(c.reloptions) o WHERE o ~ '^autovacuum_enabled=(off|f|false|no|n|0)'), a.attidentity::text, \
    s.seqincrement, s.seqcache, s.seqcycle \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 \
    LEFT JOIN LATERAL (SELECT q.* FROM pg_depend d JOIN pg_sequence q ON q.seqrelid = d.objid \
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
            AND d.refobjid = c.oid AND d.refobjsubid = a.attnum \
        UNION ALL SELECT q.* FROM pg_attrdef f JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid \
            JOIN pg_sequence q ON q.seqrelid = d.refobjid WHERE f.adrelid = c.oid AND f.adnum = a.attnum LIMIT 1) s ON true \
    WHERE n.nspname = $1 AND c.relname = $2";

/// Those that fire before each row when the relay marks, deletes or prunes. With a list of columns, only when the mark is in it.
const TRIGGERS: &str = "SELECT DISTINCT t.tgname::text, (t.tgtype & 16) > 0, (t.tgtype & 8) > 0 FROM pg_trigger t \
    LEFT JOIN pg_attribute a ON a.attrelid = t.tgrelid AND a.attname = $2 \
    WHERE t.tgrelid IN (SELECT $1 UNION SELECT relid FROM pg_partition_tree($1)) AND NOT t.tgisinternal \
        AND t.tgenabled IN ('O', 'A') AND (t.tgtype & 3) = 3 \
        AND ((t.tgtype & 8) > 0 OR (t.tgtype & 16) > 0 AND (t.tgattr::text = '' OR a.attnum = ANY (t.tgattr))) ORDER BY 1";
const RULES: &str = "SELECT rulename::text, ev_type IN ('1', '2'), ev_type = '4' FROM pg_rewrite \
    WHERE ev_class = $1 AND rulename <> '_RETURN' AND ev_enabled IN ('O', 'A') ORDER BY 1";

/// Policies that apply to our role: `*`, or r, w, d for SELECT, UPDATE, DELETE.
const POLICIES: &str = "SELECT polname::text, polcmd::text, polpermissive, coalesce(pg_get_expr(polqual, polrelid), 'true') = 'true' \
    FROM pg_policy WHERE polrelid = $1 AND polcmd <> 'a' AND (0::oid = ANY (polroles) \
        OR EXISTS (SELECT FROM unnest(polroles) r WHERE r <> 0 AND pg_has_role(current_user, r, 'USAGE'))) ORDER BY 1";

/// Since when the counters count: the last reset, but not before the outbox was made.
const ACTIVITY: &str = "SELECT coalesce(sum(t.n_tup_ins), 0)::int8, coalesce(sum(t.n_tup_upd), 0)::int8, \
    coalesce(sum(t.n_tup_del), 0)::int8, \
    (SELECT (extract(epoch FROM clock_timestamp() - greatest(d.stats_reset, s.created_at)))::float8 FROM {state} s, pg_stat_database d \
        WHERE s.name = $3 AND d.datname = current_database()), \
    (SELECT coalesce(max(n), 0) FROM {applied} WHERE name = $3) \
    FROM pg_stat_user_tables t WHERE t.relid IN (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = $1 AND c.relname = $2 UNION SELECT p.relid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, \
        pg_partition_tree(c.oid) p WHERE n.nspname = $1 AND c.relname = $2)";

/// What `seq` draws its numbers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// INCREMENT.
    pub increment: i64,
    /// CACHE.
    pub cache: i64,
    /// CYCLE.
    pub cycles: bool,
}

/// A policy of row security that applies to our role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// `*` for all commands, `r` SELECT, `w` UPDATE, `d` DELETE.
    pub command: String,
    /// Permissive ones add rows, the others take some away.
    pub permissive: bool,
    /// Whether it lets every row through.
    pub lets_all: bool,
}

/// How the table is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `r` a table, `p` a partitioned one; others are none.
    pub kind: String,
    /// Whether a crash leaves its rows.
    pub logged: bool,
    /// Whether it has parents or children by inheritance.
    pub inherits: bool,
    /// Whether a subscription feeds it.
    pub subscribed: bool,
    /// Whether autovacuum is off for it.
    pub autovacuum_off: bool,
    /// Whether `seq` is GENERATED ALWAYS AS IDENTITY.
    pub always: bool,
    /// Where its numbers come from.
    pub sequence: Option<Sequence>,
    /// Triggers that fire before each row.
    pub triggers: Vec<Obstacle>,
    /// Rules.
    pub rules: Vec<Obstacle>,
    /// When row security applies to our role: the policies that do.
    pub policies: Option<Vec<Policy>>,
    /// Indexes that begin with the number.
    pub indexes: Vec<Index>,
    /// The statement for an index that says that each number occurs once.
    pub create_unique: String,
    /// The statement for an index over the unsent rows; nothing where no column tells them apart.
    pub create_unsent: Option<String>,
}

/// What was done to the table, as the server's statistics have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activity {
    /// Rows inserted.
    pub inserted: i64,
    /// Rows updated: marks, above all.
    pub updated: i64,
    /// Rows deleted.
    pub deleted: i64,
    /// Over how many seconds; nothing when the outbox is not set up.
    pub seconds: Option<f64>,
    /// Newest batch whose rows are marked.
    pub applied: i64,
}

pub(super) async fn shape(link: &mut Link, names: &Names) -> Result<Shape, Fault> {
    let query = ask(&names.sql(TABLE)).bind(&names.schema).bind(&names.table).bind(column(names, Column::Seq));
    let row = one(link, query).await?.ok_or_else(|| super::super::failure::unreadable("table"))?;
    let oid: Oid = get(&row, 0, "oid")?;
    let obstacle = |row: &PgRow| {
        Ok(Obstacle { name: get(row, 0, "name")?, on_mark: get(row, 1, "on_mark")?, on_delete: get(row, 2, "on_delete")? })
    };
    let triggers = all(link, ask(&names.sql(TRIGGERS)).bind(oid).bind(column(names, Column::SentAt))).await?;
    let rules = all(link, ask(&names.sql(RULES)).bind(oid)).await?;
    let policies = if get(&row, 4, "row_security")? { Some(policies(link, names, oid).await?) } else { None };
    let kind: String = get(&row, 1, "relkind")?;
    Ok(Shape {
        create_unique: indexes::create_unique(names, kind == "p"),
        create_unsent: indexes::create_unsent(names, kind == "p"),
        kind,
        logged: get::<String>(&row, 2, "relpersistence")? == "p",
        inherits: get(&row, 3, "inherits")?,
        subscribed: get(&row, 5, "subscribed")?,
        autovacuum_off: get(&row, 6, "autovacuum")?,
        always: get::<Option<String>>(&row, 7, "attidentity")?.as_deref() == Some("a"),
        sequence: sequence(&row)?,
        triggers: triggers.iter().map(obstacle).collect::<Result<_, Fault>>()?,
        rules: rules.iter().map(obstacle).collect::<Result<_, Fault>>()?,
        policies,
        indexes: indexes(link, names, oid).await?,
    })
}

fn sequence(row: &PgRow) -> Result<Option<Sequence>, Fault> {
    let Some(increment) = get::<Option<i64>>(row, 8, "seqincrement")? else { return Ok(None) };
    Ok(Some(Sequence { increment, cache: get(row, 9, "seqcache")?, cycles: get(row, 10, "seqcycle")? }))
}

async fn policies(link: &mut Link, names: &Names, oid: Oid) -> Result<Vec<Policy>, Fault> {
    let rows = all(link, ask(&names.sql(POLICIES)).bind(oid)).await?;
    let policy = |row: &PgRow| {
        let (name, command) = (get(row, 0, "polname")?, get(row, 1, "polcmd")?);
        Ok(Policy { name, command, permissive: get(row, 2, "polpermissive")?, lets_all: get(row, 3, "polqual")? })
    };
    rows.iter().map(policy).collect()
}

/// What the table calls a column; nothing where it has none.
fn column(names: &Names, column: Column) -> Option<String> {
    names.columns.of(column).map(str::to_owned)
}

async fn indexes(link: &mut Link, names: &Names, oid: Oid) -> Result<Vec<Index>, Fault> {
    let mut work = link.begin().await?;
    let indexes = indexes::look_up(&mut work, oid, names).await?;
    work.commit().await?;
    Ok(indexes)
}

pub(super) async fn activity(link: &mut Link, names: &Names, name: &str) -> Result<Activity, Fault> {
    let query = ask(&names.sql(ACTIVITY)).bind(&names.schema).bind(&names.table).bind(name);
    let row = one(link, query).await?.ok_or_else(|| super::super::failure::unreadable("statistics"))?;
    Ok(Activity {
        inserted: get(&row, 0, "n_tup_ins")?,
        updated: get(&row, 1, "n_tup_upd")?,
        deleted: get(&row, 2, "n_tup_del")?,
        seconds: get(&row, 3, "seconds")?,
        applied: get(&row, 4, "n")?,
    })
}
