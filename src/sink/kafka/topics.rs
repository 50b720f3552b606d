//! What the cluster says of topics: which ones they are, how many partitions they have, and whether we may write to them.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::faults;
use super::native::Described;
use crate::fault::Fault;
use crate::park::Ailing;

/// A topic that can be published to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// How many partitions it has.
    pub(super) partitions: i32,
    /// Which topic of its name it is; nothing where the cluster does not tell.
    pub(super) id: Option<String>,
}

/// A topic, or why it cannot be published to now.
pub(super) type Found = Result<Known, Ailing>;

/// What follows from a description. An outage of the cluster is a fault, and no finding.
pub(super) fn judge(described: Described) -> Result<Found, Fault> {
    let Described { name, error, id, partitions, may_write } = described;
    match error {
        None if may_write == Some(false) => Ok(Err(faults::not_granted("WRITE", &name))),
        None if partitions > 0 => Ok(Ok(Known { partitions: i32::try_from(partitions).unwrap_or(i32::MAX), id })),
        None => Err(Fault::kafka("no_leader", format!("topic {name} has no partitions yet"))),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(Err(faults::topic_missing(&name))),
        Some(Code::TopicAuthorizationFailed) => Ok(Err(faults::not_granted("DESCRIBE", &name))),
        Some(code) => Err(faults::unavailable(code, &format!("topic {name}"), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_judged_by_what_is_told_of_it() {
        let described = |error, partitions, may_write| Described { name: "t".into(), error, id: None, partitions, may_write };
        let code = |described| match judge(described) {
            Ok(Ok(known)) => format!("{}", known.partitions),
            Ok(Err(ailing)) => format!("{}: {}", ailing.code, ailing.detail),
            Err(fault) => fault.label().to_owned(),
        };
        assert_eq!(code(described(None, 3, Some(true))), "3");
        assert_eq!(code(described(None, 3, None)), "3", "where rights are not told, only the broker decides");
        assert_eq!(code(described(None, 3, Some(false))), "not_authorised: WRITE on topic t is not granted");
        let hidden = described(Some(Code::TopicAuthorizationFailed), 0, None);
        assert_eq!(code(hidden), "not_authorised: DESCRIBE on topic t is not granted");
        assert_eq!(code(described(Some(Code::UnknownTopicOrPartition), 0, None)), "topic_missing: topic t does not exist");
        assert_eq!(code(described(Some(Code::LeaderNotAvailable), 0, None)), "no_leader");
        assert_eq!(code(described(None, 0, Some(true))), "no_leader");
    }
}
