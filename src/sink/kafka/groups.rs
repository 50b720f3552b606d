//! How far the consumer groups of a partition have come: what `trace` tells. It only needs DESCRIBE and READ on groups.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::blocking::drop_aside;
use super::scan::{Lane, Scanner};
use super::{client, faults};
use crate::fault::Fault;

/// One question to the cluster.
const ASK: Duration = Duration::from_secs(10);
/// Groups that are asked at most: each takes a connection.
const MOST_GROUPS: usize = 100;

/// A group that reads a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    /// Its name.
    pub group: String,
    /// The next offset that it will read, as it has committed.
    pub next: i64,
}

/// The groups of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Those that have committed a position there, by name.
    pub positions: Vec<GroupPosition>,
    /// Those whose positions we may not read.
    pub hidden: Vec<String>,
    /// Whether there are more than are asked.
    pub more: bool,
}

impl Scanner<'_> {
    /// The groups that have committed a position in this partition.
    pub fn groups(&self, lane: Lane<'_>) -> Result<Groups, Fault> {
        let listed = self.consumer().client().fetch_group_list(None, ASK);
        let listed = listed.map_err(|error| faults::asked(&error, "the consumer groups are not told"))?;
        let mut names: Vec<&str> = listed.groups().iter().map(|group| group.name()).collect();
        names.sort_unstable();
        let mut groups = Groups { more: names.len() > MOST_GROUPS, ..Groups::default() };
        for name in names.into_iter().take(MOST_GROUPS) {
            match self.position_of(name, lane)? {
                Told::At(next) => groups.positions.push(GroupPosition { group: name.to_owned(), next }),
                Told::Nowhere => {}
                Told::Hidden => groups.hidden.push(name.to_owned()),
            }
        }
        Ok(groups)
    }

    fn position_of(&self, group: &str, lane: Lane<'_>) -> Result<Told, Fault> {
        let member = client::asking_for(&self.shared.settings, group)?;
        let mut places = TopicPartitionList::new();
        places.add_partition(lane.topic, lane.partition);
        let committed = member.committed_offsets(places, ASK);
        drop_aside(member);
        let place = match committed {
            Ok(places) => places.find_partition(lane.topic, lane.partition).map(|place| (place.offset(), place.error())),
            Err(error) if is_hidden(error.rdkafka_error_code()) => return Ok(Told::Hidden),
            Err(error) => return Err(faults::asked(&error, &format!("the position of group {group} is not told"))),
        };
        Ok(match place {
            Some((_, Err(error))) if is_hidden(error.rdkafka_error_code()) => Told::Hidden,
            Some((Offset::Offset(next), Ok(()))) => Told::At(next),
            Some(_) | None => Told::Nowhere,
        })
    }
}

enum Told {
    At(i64),
    Nowhere,
    Hidden,
}

fn is_hidden(code: Option<Code>) -> bool {
    matches!(code, Some(Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed))
}
