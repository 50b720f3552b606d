//! Who may publish where: whether this database, and this past of it, is the one that the journal knows. Pure.

use crate::fault::{Halt, HaltCode};
use crate::journal::{Owner, View};
use crate::source::Standing;

/// Whether the outbox may be published from this database at all: a copy must never publish into the original's topics.
pub fn judge_database(standing: &Standing) -> Result<(), Halt> {
    let halt = |what: &str, now: &str, accepted: &[String]| {
        Err(Halt::new(HaltCode::MovedDatabase, format!("{what} is {now}, accepted are {}", accepted.join(", "))))
    };
    if !standing.accepted_systems.contains(&standing.database.system) {
        return halt("the system identifier", &standing.database.system, &standing.accepted_systems);
    }
    if !standing.accepted_addresses.contains(&standing.address) {
        return halt("the address", &standing.address, &standing.accepted_addresses);
    }
    Ok(())
}

/// Whether the journal's newest record allows this database to publish after batch `seen`, the last one when we looked before fencing:
/// no later primary has published, and no other database has since.
pub fn judge_journal(standing: &Standing, view: &View, seen: u64) -> Result<(), Halt> {
    let here = &standing.database;
    match &view.newest {
        Some(newest) if newest.database.system == here.system && newest.database.timeline > here.timeline => {
            let evidence = format!("timeline here {}, in the journal's last record {}", here.timeline, newest.database.timeline);
            Err(Halt::new(HaltCode::OldPrimary, evidence))
        }
        Some(_) | None => judge_strangers(standing, view, seen),
    }
}

fn judge_strangers(standing: &Standing, view: &View, seen: u64) -> Result<(), Halt> {
    match stranger(standing, view) {
        Some(stranger) if view.last.n > seen => {
            let evidence = format!(
                "batch {} was published after batch {seen} by instance {} under lease {}, which this database never gave",
                view.last.n, stranger.instance, stranger.epoch
            );
            Err(Halt::new(HaltCode::TwoDatabases, evidence))
        }
        Some(_) | None => Ok(()),
    }
}

/// Batches that may be committed and not marked when a relay dies: the one it is marking and the one it is publishing.
const UNMARKED: u64 = 2;

/// Whether the table lies further behind the journal than a relay that died leaves it: it went back in time, or it is a copy of a
/// database that is published from. Of a copy made under the present lease the number of unmarked batches is the only sign.
pub fn went_back(standing: &Standing, view: &View) -> bool {
    stranger(standing, view).is_some() || view.last.n > standing.applied.n + UNMARKED
}

/// Whether somebody published between two views of the journal, although by then every other process of this database knew that it had
/// lost the lease.
pub fn judge_silence(before: &View, later: &View) -> Result<(), Halt> {
    match &later.newest {
        Some(newest) if later.last.n > before.last.n => {
            let evidence = format!(
                "batch {} was published after batch {} by instance {} under lease {}, while this process has the lease",
                later.last.n, before.last.n, newest.owner.instance, newest.owner.epoch
            );
            Err(Halt::new(HaltCode::TwoDatabases, evidence))
        }
        Some(_) | None => Ok(()),
    }
}

/// An owner above the applied batch to whom this database never gave a lease: it went back in time, or another database publishes.
pub fn stranger<'a>(standing: &Standing, view: &'a View) -> Option<&'a Owner> {
    view.owners_above.iter().find(|owner| !standing.gave(owner))
}
