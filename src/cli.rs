//! The command line: data to stdout, talk to stderr, an exit code that tells what happened.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use uuid::Uuid;

use crate::commands::{self, Deciding, Failure, Format};
use crate::config::{self, Config, Loaded, Sources};
use crate::source::desk::{self, Decision};

mod looking;

use looking::{Trace, Verify};

/// Exit code: the arguments make no sense.
const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "outboxd", version, about, long_about = None, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration file [default: $OUTBOXD_CONFIG, else /etc/outboxd/outboxd.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one setting; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  outboxd migrate --topics orders:12      create tables, journal topic and the topic orders
  outboxd check                           will it work, and what is promised
  outboxd run                             relay until SIGTERM
  outboxd status                          where the outbox stands

Exit codes: 0 done or yes, 1 failed, 2 usage, 3 the answer is no, 69 database or Kafka unreachable,
75 timed out, 77 a right is missing, 78 configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Relay events from the outbox table to Kafka
    #[command(after_help = "With --once, what is set aside stays behind: parked events, those behind them, and those of topics\n\
        that cannot be published to. It is told at the end, and the exit code is 3 then.\n\n\
        Examples:\n  outboxd run\n  outboxd run --once      drain what is there and leave")]
    Run {
        /// Publish what waits and leave; exit code 3 if something cannot be published now
        #[arg(long)]
        once: bool,
    },
    /// Show all of it on this machine: no server, no configuration
    #[command(after_help = "A shop writes orders to a SQLite outbox; some of its transactions are rolled back. A relay\n\
        process, killed now and then, publishes them to a broker inside, which kcat and other clients\n\
        built on librdkafka can read. A reader counts what arrives. Nothing stays behind but the\n\
        verdict; the exit code is 0 when nothing was lost, 3 when the verdict is bad.\n\n\
        Examples:\n  outboxd demo\n  outboxd demo --seconds 600      time enough to read along with another client\n  \
        outboxd demo --seconds 10 --json")]
    Demo(Demo),
    /// Create or upgrade the tables and the journal topic
    #[command(after_help = "Examples:\n  outboxd migrate --plan\n  outboxd migrate --topics orders:12,payments:6\n  \
        outboxd migrate --roles --writer shop --relay outboxd --apply")]
    Migrate(Migrate),
    /// Tell whether it will work, and what is promised; changes nothing
    #[command(
        after_help = "Examples:\n  outboxd check\n  outboxd check --json\n  outboxd check --offline      look at the configuration alone"
    )]
    Check {
        /// Look at the configuration alone
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Tell where the outbox stands
    #[command(after_help = "Examples:\n  outboxd status\n  outboxd status --watch\n  outboxd status --json")]
    Status {
        /// Print it again every so often, until Ctrl-C
        #[arg(long, value_name = "EVERY", num_args = 0..=1, default_missing_value = "2s", value_parser = humantime::parse_duration)]
        watch: Option<Duration>,
        #[command(flatten)]
        json: Json,
    },
    /// Compare table, journal and topics: what is lost, duplicated or out of order
    #[command(after_help = "It only reads, also while a relay runs. What each word means: docs/verify.md.\n\n\
        Examples:\n  outboxd verify\n  outboxd verify --since 2h --topic orders\n  outboxd verify --json\n\n\
        Exit code 3: something is wrong.")]
    Verify(Verify),
    /// Tell where one event is: committed, waiting, published, consumed
    #[command(after_help = "It only reads, also while no relay runs.\n\nExamples:\n  \
        outboxd trace 3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1\n  outboxd trace orders:3:4711\n  outboxd trace --key order-42 --json\n\n\
        Exit code 3: nobody knows it, or it has vanished.")]
    Trace(Trace),
    /// Insert one event into the outbox table
    #[command(after_help = "Examples:\n  outboxd send --topic orders --key order-42 --type OrderPlaced '{\"total\": 3}'\n  \
        outboxd send --topic orders --wait '{}'      wait until it is published and tell where")]
    Send(Send),
    /// Look at events that were set aside, retry or discard them
    #[command(subcommand)]
    Parked(ParkedCommand),
    /// Stop publishing until `resume`; what is begun is finished
    #[command(after_help = "Examples:\n  outboxd pause --reason 'moving the topic orders'")]
    Pause(Reason),
    /// Go on publishing
    #[command(after_help = "Examples:\n  outboxd resume --reason 'moved'")]
    Resume(Reason),
    /// Accept a new state of affairs, after a halt or a change of name
    #[command(
        group = clap::ArgGroup::new("what").required(true).args(["database", "journal", "name"]),
        after_help = "Examples:\n  outboxd adopt --database --dry-run\n  outboxd adopt --database --reason 'moved to db2'\n  \
        outboxd adopt --journal --reason 'restored a backup that is older than the journal'\n  \
        outboxd adopt --name shop --reason 'renamed'      it goes on under the configured name"
    )]
    Adopt {
        /// This database, as one that the outbox may be published from
        #[arg(long)]
        database: bool,
        /// The journal as it is now; that of another outbox with its identity
        #[arg(long, value_name = "UUID", num_args = 0..=1)]
        journal: Option<Option<Uuid>>,
        /// With --journal: give up so many events of a batch that are no longer in the table
        #[arg(long, value_name = "COUNT", conflicts_with_all = ["database", "name"], default_value_t = 0, hide_default_value = true)]
        missing: usize,
        /// The outbox that had this name so far, under the configured name
        #[arg(long, value_name = "OLD")]
        name: Option<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Find out from the topics what was published, when the journal cannot tell
    #[command(
        after_help = "It leads out of the halts journal-window and kafka-behind: docs/verify.md. Look first, with --dry-run.\n\n\
        Examples:\n  outboxd reconcile --dry-run\n  outboxd reconcile --reason 'the journal topic was deleted'\n\n\
        Exit code 3: nothing was changed."
    )]
    Reconcile {
        /// Go on although nothing is known of so many rows: they are published, perhaps again
        #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
        undecided: u64,
        #[command(flatten)]
        change: Change,
    },
    /// Accept the present number of partitions of a topic
    #[command(after_help = "Examples:\n  outboxd repin orders --dry-run\n  outboxd repin orders --reason 'grown to 24'")]
    Repin {
        /// Topic as in the table
        topic: String,
        #[command(flatten)]
        change: Change,
    },
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running relay whether it is ready
    #[command(
        after_help = "Examples:\n  outboxd healthcheck\n  outboxd healthcheck --strict      also fail on a standby, a halt, an outage"
    )]
    Healthcheck {
        /// Also fail on a standby, a halt or an outage of Kafka
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Print what lets a shell complete this command line
    #[command(after_help = "Examples:\n  outboxd completions bash > ~/.local/share/bash-completion/completions/outboxd\n  \
        outboxd completions zsh > ~/.zfunc/_outboxd")]
    Completions {
        /// Shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration and where each value came from
    #[command(after_help = "Examples:\n  outboxd config show\n  outboxd config show --json")]
    Show(Json),
}

#[derive(Debug, Args)]
struct Reason {
    /// Why; is kept in the audit
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
struct Change {
    /// Why; is kept in the audit
    #[arg(long, required_unless_present = "dry_run", default_value = "", hide_default_value = true)]
    reason: String,
    /// Only show what it rests on
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum ParkedCommand {
    /// List parked events, grouped by reason, with what waits behind them
    #[command(after_help = "Examples:\n  outboxd parked list\n  outboxd parked list --code too_large --json")]
    List {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        json: Json,
    },
    /// Show one parked event
    #[command(after_help = "Examples:\n  outboxd parked show 3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1")]
    Show {
        /// Identity of the event
        id: String,
        #[command(flatten)]
        json: Json,
    },
    /// Try parked events again, in order, before what waits behind them
    #[command(after_help = "Examples:\n  outboxd parked retry --all\n  outboxd parked retry --topic orders --dry-run")]
    Retry(Decide),
    /// Give parked events up: they are marked as sent and never published
    #[command(after_help = "Examples:\n  outboxd parked discard 3f0c1f6e-7a51-4c06-9d2e-b1a0c3a9f4d1 --reason 'test data'\n  \
        outboxd parked discard --code too_large --reason 'ticket 1234' --dry-run")]
    Discard(Decide),
}

/// Which parked events.
#[derive(Debug, Args)]
struct Chosen {
    /// Only those parked for this reason
    #[arg(long)]
    code: Option<String>,
    /// Only those of this topic
    #[arg(long)]
    topic: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "code", "topic", "all"]))]
struct Decide {
    /// Identities of events
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    chosen: Chosen,
    /// All of them
    #[arg(long, conflicts_with_all = ["ids", "code", "topic"])]
    all: bool,
    /// Why; is kept in the audit
    #[arg(long, default_value = "")]
    reason: String,
    /// Only say how many it would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
struct Json {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Json {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}

#[derive(Debug, Args)]
struct Demo {
    /// How long the shop writes; Ctrl-C ends it earlier
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// About how many events a second it writes
    #[arg(long, default_value_t = 100, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
struct Migrate {
    /// Print what would be done, and do nothing
    #[arg(long)]
    plan: bool,
    /// Print the statements that give two roles the least rights they need
    #[arg(long)]
    roles: bool,
    /// With --roles: the role of the services that write events
    #[arg(long, requires = "roles", default_value = "outbox_writer", value_name = "ROLE")]
    writer: String,
    /// With --roles: the role of the relay
    #[arg(long, requires = "roles", default_value = "outboxd", value_name = "ROLE")]
    relay: String,
    /// With --roles: run the statements too
    #[arg(long, requires = "roles")]
    apply: bool,
    /// Event topics to create, with their numbers of partitions
    #[arg(long, value_name = "TOPIC:PARTITIONS,…", value_delimiter = ',', value_parser = topic)]
    topics: Vec<(String, i32)>,
}

#[derive(Debug, Args)]
struct Send {
    /// Topic of the event, as the service would write it
    #[arg(long)]
    topic: String,
    /// Key: decides order and partition
    #[arg(long)]
    key: Option<String>,
    /// Which event
    #[arg(long = "type", value_name = "TYPE", default_value = "")]
    kind: String,
    /// Further headers, a JSON object
    #[arg(long, value_name = "JSON")]
    headers: Option<String>,
    /// Database URL of a role that may write, when the configured one may not
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Wait until it is published, and print where
    #[arg(long)]
    wait: bool,
    /// With --wait: how long
    #[arg(long, requires = "wait", default_value = "30s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The value; `-` reads it from standard input
    payload: String,
    #[command(flatten)]
    json: Json,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as section.key=value")?;
    Ok((key.into(), value.into()))
}

fn topic(text: &str) -> Result<(String, i32), String> {
    let (name, count) = text.split_once(':').ok_or("write it as topic:partitions, for example orders:12")?;
    let count = count.parse().ok().filter(|count| (1..=10_000).contains(count)).ok_or("partitions are a number from 1 to 10000")?;
    Ok((name.into(), count))
}

/// The command line as a value: for completions, man pages and the reference.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the process; returns its exit code.
pub fn main() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // help and version are answers and go to stdout; nothing can be done when even printing fails
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE } else { 0 };
        }
    };
    let code = dispatch(arguments);
    code.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        failure.exit_code()
    })
}

fn dispatch(arguments: Arguments) -> Result<u8, Failure> {
    if let Command::Completions { shell } = arguments.command {
        return Ok(commands::completions(command(), shell));
    }
    if let Command::Demo(demo) = &arguments.command {
        if arguments.config.is_some() || !arguments.set.is_empty() {
            eprintln!("error: the demo takes no configuration: leave out --config and --set");
            return Ok(EXIT_USAGE);
        }
        return on_runtime(commands::demo(demo.settings(), demo.json.format()));
    }
    let mut flags = arguments.set;
    if let Command::Send(Send { url: Some(url), .. }) = &arguments.command {
        flags.push(("database.url".into(), url.clone()));
    }
    let loaded = match (config::load(&Sources::of_process(arguments.config, flags)), &arguments.command) {
        (Err(errors), Command::Check { json, .. }) => return Ok(commands::check_errors(&errors, json.format())),
        (loaded, _) => loaded?,
    };
    if let Command::Config(ConfigCommand::Show(json)) = arguments.command {
        return commands::config_show(&loaded, json.format());
    }
    on_runtime(run(arguments.command, &loaded)).map_err(|failure| failure.of(&loaded.config))
}

/// Runs a command to its end on this thread, with others beside it.
fn on_runtime(command: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::refused_by_system("the runtime cannot be started", &error))?;
    let code = runtime.block_on(command);
    // a client that still hangs in a call to its broker must not hold the process
    runtime.shutdown_background();
    code
}

async fn run(command: Command, loaded: &Loaded) -> Result<u8, Failure> {
    let config = &loaded.config;
    match command {
        Command::Run { once } => commands::run(config, once.into()).await,
        Command::Demo(demo) => commands::demo(demo.settings(), demo.json.format()).await,
        Command::Migrate(Migrate { roles: true, writer, relay, apply, .. }) => {
            commands::roles(config, &commands::Roles { writer, relay }, apply.into()).await
        }
        Command::Migrate(Migrate { plan: true, topics, .. }) => commands::plan(config, &topics).await,
        Command::Migrate(Migrate { topics, .. }) => commands::migrate(config, &topics).await,
        Command::Check { offline, json } => Ok(commands::check(config, offline.into(), json.format()).await),
        Command::Status { watch: None, json } => commands::status(config, json.format()).await,
        Command::Status { watch: Some(every), json } => commands::watch_status(config, every, json.format()).await,
        Command::Verify(verify) => commands::verify(config, verify.into()).await,
        Command::Trace(trace) => {
            let (asked, format) = trace.asked();
            commands::trace(config, asked, format).await
        }
        Command::Send(send) => commands::send(config, send.into()).await,
        Command::Parked(parked) => run_parked(config, parked).await,
        Command::Pause(Reason { reason }) => commands::pause(config, &reason).await,
        Command::Resume(Reason { reason }) => commands::resume(config, &reason).await,
        Command::Adopt { journal: Some(foreign), missing, change, .. } => {
            commands::adopt_journal(config, commands::Consent { foreign, missing }, &change.reason, change.dry_run.into()).await
        }
        Command::Adopt { name: Some(old), change, .. } => {
            commands::adopt_name(config, &old, &change.reason, change.dry_run.into()).await
        }
        Command::Adopt { change, .. } => commands::adopt_database(config, &change.reason, change.dry_run.into()).await,
        Command::Reconcile { undecided, change } => {
            commands::reconcile(config, undecided, &change.reason, change.dry_run.into()).await
        }
        Command::Repin { topic, change } => commands::repin(config, &topic, &change.reason, change.dry_run.into()).await,
        Command::Config(ConfigCommand::Show(json)) => commands::config_show(loaded, json.format()),
        Command::Healthcheck { strict, json } => commands::healthcheck(config, strict.into(), json.format()).await,
        Command::Completions { shell } => Ok(commands::completions(self::command(), shell)),
    }
}

async fn run_parked(config: &Config, command: ParkedCommand) -> Result<u8, Failure> {
    match command {
        ParkedCommand::List { chosen, json } => commands::parked_list(config, &chosen.with(Vec::new()), json.format()).await,
        ParkedCommand::Show { id, json } => commands::parked_show(config, &id, json.format()).await,
        ParkedCommand::Retry(decide) => commands::parked_decide(config, &decide.to(Decision::Retry)).await,
        ParkedCommand::Discard(decide) if decide.reason.trim().is_empty() && !decide.dry_run => {
            eprintln!("error: a discarded event is never published: say why with --reason");
            Ok(EXIT_USAGE)
        }
        ParkedCommand::Discard(decide) => commands::parked_decide(config, &decide.to(Decision::Discard)).await,
    }
}

impl Demo {
    fn settings(&self) -> commands::DemoSettings {
        commands::DemoSettings { lasts: Duration::from_secs(self.seconds.into()), rate: self.rate }
    }
}

impl Chosen {
    fn with(self, ids: Vec<String>) -> desk::Chosen {
        desk::Chosen { ids, code: self.code, topic: self.topic }
    }
}

impl Decide {
    fn to(self, decision: Decision) -> Deciding {
        let format = self.json.format();
        Deciding { decision, chosen: self.chosen.with(self.ids), reason: self.reason, dry_run: self.dry_run, format }
    }
}

impl From<Send> for commands::Sending {
    fn from(send: Send) -> Self {
        Self {
            id: Uuid::new_v4(),
            topic: send.topic,
            key: send.key,
            kind: send.kind,
            payload: send.payload,
            headers: send.headers,
            wait: send.wait.then_some(send.timeout),
            format: send.json.format(),
        }
    }
}
