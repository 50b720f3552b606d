//! The view of what waits. What it says follows from `outbox.columns` and from the types of the table, which may change after `migrate`.

use sha2::{Digest, Sha256};

use super::columns::Columns;
use super::connection::{Work, statement};
use super::names::{Names, literal};
use super::table::get;
use crate::fault::Fault;
use crate::source::desk::Step;

/// Whether the view is what it should be stands in its comment. Rejected: to compare pg_get_viewdef(), which words a definition anew and
/// differently in each version.
const COMMENT: &str = "COMMENT ON VIEW {pending} IS {comment};\n";
const DROP: &str = "DROP VIEW IF EXISTS {pending};\n";
/// Comment, and the statements that give a view that is made anew its owner and the rights on it back.
const SEEN: &str = "SELECT obj_description(c.oid, 'pg_class'), \
    CASE WHEN pg_has_role(c.relowner, 'USAGE') AND pg_get_userbyid(c.relowner) <> current_user \
        THEN format(E'ALTER VIEW %s OWNER TO %I;\\n', c.oid::regclass, pg_get_userbyid(c.relowner)) ELSE '' END || \
    coalesce((SELECT string_agg(format(E'GRANT %s ON %s TO %s%s;\\n', a.privilege_type, c.oid::regclass, \
            CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, \
            CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '' ORDER BY a.grantee, a.privilege_type) \
        FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner), '') \
    FROM pg_class c WHERE c.oid = to_regclass($1)";

/// The statements that make the view; `definition` is that of the newest migration.
pub(super) fn create(names: &Names, columns: &Columns, definition: &str) -> String {
    let text = names.sql(&columns.expand(definition)).text().to_owned();
    let comment = literal(&comment(&text));
    format!("{text}{}", names.sql_with(COMMENT, &[("comment", &comment)]).text())
}

fn comment(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let hash: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("what is not published yet, and why: made by outboxd migrate ({hash})")
}

/// Makes the view anew, where it is missing or not what it should be.
pub(super) async fn step(work: &mut Work<'_>, names: &Names, columns: &Columns, definition: &str) -> Result<Option<Step>, Fault> {
    let wanted = comment(names.sql(&columns.expand(definition)).text());
    let view = names.in_schema(&names.with_suffix("_pending"));
    let row = work.row(statement(&names.sql(SEEN)).bind(view)).await?;
    let (found, back): (Option<String>, String) = match row {
        Some(row) => (get(&row, 0, "comment")?, get(&row, 1, "grants")?),
        None => (None, String::new()),
    };
    if found.as_deref() == Some(wanted.as_str()) {
        return Ok(None);
    }
    let sql = format!("{}{}{back}", names.sql(DROP).text(), create(names, columns, definition));
    Ok(Some(Step { title: format!("view {}", names.with_suffix("_pending")), sql }))
}
