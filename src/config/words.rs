//! The settings that are one word out of a few.

/// Declares an enum whose variants are words of the configuration, and how it is read and shown.
/// Words after `later` are refused as not in this version.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[$about_variant:meta])* $variant:ident = $word:literal,)+ }
        $(later $($later:literal),+)?
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$about_variant])* $variant,)+ }

        impl $name {
            /// The words, as they are written in the configuration.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word of this variant.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Value for $name {
            fn read(raw: &Raw) -> Result<Self, Refusal> {
                let text = raw.text()?;
                $(if text == $word { return Ok(Self::$variant); })+
                Err(unknown_word(text, Self::WORDS, &[$($($later),+)?]))
            }

            fn shown(&self) -> Shown {
                Shown::Text(self.as_str().to_owned())
            }
        }
    };
}

use std::fmt;

use super::error::{ErrorCode, Refusal, quoted};
use super::value::{Raw, Shown, Value};

words! {
    /// How the connection to the database is encrypted.
    DatabaseTls {
        /// Encrypted where the server offers it, without looking at its certificate.
        Prefer = "prefer",
        /// Always encrypted, without looking at the certificate.
        Require = "require",
        /// Always encrypted; the certificate must be valid and name the host.
        VerifyFull = "verify-full",
    }
}

words! {
    /// How a published row is marked.
    Mark {
        /// `sent_at` is set; the row is removed after `outbox.retention`.
        Row = "row",
        /// The row is removed at once.
        Delete = "delete",
    }
    later "ledger"
}

words! {
    /// Which order the events keep.
    Order {
        /// Events of one key keep their causal order.
        Key = "key",
        /// No order is promised: for tables that cannot keep one.
        None = "none",
    }
}

words! {
    /// What waits behind an event that can never be published.
    OnPoison {
        /// Later events of its topic and key: their order is kept.
        ParkKey = "park_key",
        /// Nothing: only the event itself is set aside.
        ParkEvent = "park_event",
    }
}

words! {
    /// What is promised to the consumers.
    Delivery {
        /// Kafka transactions and the journal: every event exactly once.
        ExactlyOnce = "exactly_once",
        /// For brokers without transactions: duplicates, and old after new, are possible after a crash.
        AtLeastOnce = "at_least_once",
    }
}

words! {
    /// How the connection to the brokers is secured.
    Security {
        /// Neither encrypted nor authenticated.
        Plaintext = "plaintext",
        /// TLS.
        Ssl = "ssl",
        /// SASL over TLS.
        SaslSsl = "sasl_ssl",
        /// SASL without encryption.
        SaslPlaintext = "sasl_plaintext",
    }
}

impl Security {
    /// Whether the connection is encrypted by TLS.
    pub fn uses_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether the relay authenticates itself by SASL.
    pub fn uses_sasl(self) -> bool {
        matches!(self, Self::SaslSsl | Self::SaslPlaintext)
    }
}

words! {
    /// How the relay authenticates itself to the brokers; the words are those of Kafka.
    SaslMechanism {
        /// User name and password as they are.
        Plain = "PLAIN",
        /// User name and password by challenge, SHA-256.
        ScramSha256 = "SCRAM-SHA-256",
        /// User name and password by challenge, SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
        /// A bearer token out of a file.
        OauthBearer = "OAUTHBEARER",
    }
}

impl SaslMechanism {
    /// Whether the mechanism wants a user name and a password.
    pub fn uses_password(self) -> bool {
        match self {
            Self::Plain | Self::ScramSha256 | Self::ScramSha512 => true,
            Self::OauthBearer => false,
        }
    }
}

words! {
    /// How log lines are written.
    LogFormat {
        /// Text on a terminal, else JSON.
        Auto = "auto",
        /// Text.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// The least level that is logged.
    LogLevel {
        /// Needs a person.
        Error = "error",
        /// Heals itself.
        Warn = "warn",
        /// The operator's life: claimed, stepped down, drained.
        Info = "info",
        /// What the relay decides, and why.
        Debug = "debug",
        /// Every step.
        Trace = "trace",
    }
}

fn unknown_word(text: &str, words: &[&str], later: &[&str]) -> Refusal {
    let list = words.join(", ");
    if later.contains(&text) {
        let cause = format!("{} is not in this version", quoted(text));
        return Refusal::new(ErrorCode::NotInThisVersion, cause, format!("Write one of: {list}."));
    }
    let cause = format!("{} is none of the words this key knows", quoted(text));
    Refusal::new(ErrorCode::UnknownWord, cause, format!("Write one of: {list}."))
}
