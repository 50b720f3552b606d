//! `outbox.columns`: what the columns are called in a table of one's own.

use toml_edit::{Document, Item};

use super::error::{ErrorCode, Refusal, quoted};
use super::names::LONGEST_IDENTIFIER;
use super::value::{Raw, Shown, Value};

/// A column of the table of events, by our name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The order.
    Seq,
    /// The identity.
    Id,
    /// Where the event goes.
    Topic,
    /// Order and partition.
    Key,
    /// Which event.
    Type,
    /// Which service wrote it.
    Source,
    /// The value.
    Payload,
    /// Further headers.
    Headers,
    /// When it was written.
    CreatedAt,
    /// When it was published.
    SentAt,
}

impl Column {
    /// All of them, in the order of the standard table.
    pub const ALL: [Self; 10] = [
        Self::Seq,
        Self::Id,
        Self::Topic,
        Self::Key,
        Self::Type,
        Self::Source,
        Self::Payload,
        Self::Headers,
        Self::CreatedAt,
        Self::SentAt,
    ];

    /// Its name in the configuration and in the standard table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seq => "seq",
            Self::Id => "id",
            Self::Topic => "topic",
            Self::Key => "key",
            Self::Type => "type",
            Self::Source => "source",
            Self::Payload => "payload",
            Self::Headers => "headers",
            Self::CreatedAt => "created_at",
            Self::SentAt => "sent_at",
        }
    }

    /// Whether no event can be published without it.
    pub fn is_required(self) -> bool {
        match self {
            Self::Seq | Self::Id | Self::Topic | Self::Payload => true,
            Self::Key | Self::Type | Self::Source | Self::Headers | Self::CreatedAt | Self::SentAt => false,
        }
    }
}

/// Which column of the table each of ours is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns([Option<String>; 10]);

/// Those of the standard table.
impl Default for Columns {
    fn default() -> Self {
        Self(Column::ALL.map(|column| Some(column.name().to_owned())))
    }
}

impl Columns {
    /// Its name in the catalog; nothing: the table has none.
    pub fn of(&self, column: Column) -> Option<&str> {
        self.0[column as usize].as_deref()
    }

    /// Whether they are those of the standard table, which `migrate` creates.
    pub fn are_standard(&self) -> bool {
        *self == Self::default()
    }

    /// The same with another name for one column; nothing: the table has none.
    pub fn with(mut self, column: Column, name: Option<&str>) -> Self {
        self.0[column as usize] = name.map(str::to_owned);
        self
    }

    /// Reads names by our names; an empty one is a column that the table does not have.
    fn parse(pairs: &[(String, String)]) -> Result<Self, Refusal> {
        let mut columns = Self::default();
        for (ours, theirs) in pairs {
            let column = Column::ALL.into_iter().find(|column| column.name() == ours).ok_or_else(|| unknown(ours))?;
            columns.0[column as usize] = checked(column, theirs)?;
        }
        columns.each_has_its_own().map(|()| columns)
    }

    /// What is written must not be read as anything else, and one number may also be the identity.
    fn each_has_its_own(&self) -> Result<(), Refusal> {
        for (column, others) in [(Column::SentAt, &Column::ALL[..9]), (Column::Seq, &Column::ALL[2..])] {
            let shared = others.iter().find(|other| self.of(**other).is_some() && self.of(**other) == self.of(column));
            if let Some(other) = shared {
                let cause = format!("{} and {} are the same column", column.name(), other.name());
                return Err(Refusal::new(ErrorCode::Conflict, cause, format!("Give {} a column of its own.", column.name())));
            }
        }
        Ok(())
    }
}

fn checked(column: Column, name: &str) -> Result<Option<String>, Refusal> {
    if name.is_empty() && column.is_required() {
        let cause = format!("no event can be published without {}", column.name());
        return Err(Refusal::new(ErrorCode::Malformed, cause, "Write the name of a column; a generated column will do."));
    }
    if name.contains('\0') || name.len() > LONGEST_IDENTIFIER {
        let cause = format!("{} cannot be the name of a column", quoted(name));
        let remedy = format!("Write the name as the catalog has it: at most {LONGEST_IDENTIFIER} bytes, none of them NUL.");
        return Err(Refusal::new(ErrorCode::Malformed, cause, remedy));
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

fn unknown(name: &str) -> Refusal {
    let names = || Column::ALL.into_iter().map(Column::name);
    let nearest = super::draft::nearest(name, names());
    let list = || format!("There are {}.", names().collect::<Vec<_>>().join(", "));
    let remedy = nearest.map_or_else(list, |nearest| format!("Did you mean {nearest}?"));
    Refusal::new(ErrorCode::UnknownKey, format!("an event has no {}", quoted(name)), remedy)
}

const REMEDY: &str = "Write it as { id = \"event_id\", topic = \"aggregatetype\", headers = \"\" }.";

/// A table of names; in the environment and on the command line as TOML writes it in one line.
impl Value for Columns {
    fn read(raw: &Raw) -> Result<Self, Refusal> {
        match raw {
            Raw::Table(pairs) => Self::parse(pairs),
            Raw::Word(text) if text.is_empty() => Ok(Self::default()),
            Raw::Word(text) => match in_one_line(text) {
                Some(pairs) => Self::parse(&pairs),
                None => Err(Refusal::new(ErrorCode::Malformed, format!("{} is no table of names", quoted(text)), REMEDY)),
            },
            Raw::Quoted(_) | Raw::Integer(_) | Raw::Boolean(_) | Raw::List(_) | Raw::Other(_) => {
                Err(raw.wrong_type("a table of names", REMEDY))
            }
        }
    }

    fn shown(&self) -> Shown {
        let changed = Column::ALL.into_iter().filter(|column| self.of(*column) != Some(column.name()));
        Shown::Table(changed.map(|column| (column.name().to_owned(), self.of(column).unwrap_or_default().to_owned())).collect())
    }
}

fn in_one_line(text: &str) -> Option<Vec<(String, String)>> {
    let document = Document::parse(format!("columns = {text}")).ok()?;
    let only = document.as_table().len() == 1;
    document.as_table().get("columns").filter(|_| only).and_then(pairs)
}

/// The names and strings of a table that holds nothing else.
pub(super) fn pairs(item: &Item) -> Option<Vec<(String, String)>> {
    let pair = |(name, item): (&str, &Item)| Some((name.to_owned(), item.as_str()?.to_owned()));
    item.as_table_like()?.iter().map(pair).collect()
}
