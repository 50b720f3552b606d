//! The course of a demo: the shop writes, closes, what is left is published, the relay leaves, the rest is read, and the account is held
//! against the table.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::broker::{Broker, TOPIC};
use super::folder::Folder;
use super::keeper::Keeper;
use super::reader::{Reader, Shared, lock};
use super::shop::{self, Shop};
use super::table::Table;
use super::verdict::{Course, Verdict};
use super::view::{Figures, Stage};
use super::{Asks, Screen, Settings, Trouble};

/// How long the relay may take for what is left when the shop has closed.
const DRAIN_MOST: Duration = Duration::from_secs(30);

/// Why a stage is over.
#[derive(Debug)]
enum Over {
    /// Its time was up, a person asked for it, or there was nothing left to do.
    Ended,
    /// Something of the demo failed.
    Failed(Trouble),
}

/// A demo that is running.
struct Play<'a> {
    settings: Settings,
    asks: &'a mut Asks,
    screen: &'a mut Screen,
    account: Shared,
    table: Table,
    shop: Shop,
    reader: Reader,
    keeper: Keeper,
    opened: Instant,
    most_pending: u64,
}

/// Plays a demo until its time is over or somebody asks for its end; asking again cuts short what follows. Everything it made is gone
/// when this returns, or is dropped. To be awaited on a thread that lives as long as the process: the relay dies with it.
pub async fn run(settings: Settings, asks: &mut Asks, screen: &mut Screen) -> Result<Verdict, Trouble> {
    let folder = Folder::create()?;
    let broker = Broker::start()?;
    let keeper = Keeper::new(&folder, broker.address())?;
    tokio::select! {
        migrated = keeper.migrate() => migrated?,
        () = asks.next() => return Err(Trouble::Ended),
    }
    introduce(screen, &broker);
    let account = Shared::default();
    let table = Table::open(&folder.file("shop.db"), shop::WRITERS).await?;
    let reader = Reader::start(broker.address(), &account)?;
    let shop = Shop::open(&table, &account, settings.rate);
    let opened = Instant::now();
    Play { settings, asks, screen, account, table, shop, reader, keeper, opened, most_pending: 0 }.play().await
}

fn introduce(screen: &mut Screen, broker: &Broker) {
    screen.say(&format!("A shop writes orders, the relay publishes to topic {TOPIC}, a reader reads back."));
    screen.say("Other clients on this machine can read along, if they are built on librdkafka:\n");
    screen.say(&format!("  {}\n", broker.kcat()));
    screen.say("Java's cannot: they misread this broker's answer to their first question.");
    screen.say("The broker inside knows no transactions, so the relay runs at_least_once here.\n");
}

impl Play<'_> {
    async fn play(mut self) -> Result<Verdict, Trouble> {
        self.keeper.start()?;
        let mut trouble = None;
        let closes = self.opened + self.settings.lasts;
        if let Over::Failed(failed) = self.stage(Stage::Writing, closes).await {
            trouble.get_or_insert(failed);
        }
        self.keeper.spare();
        if let Err(failed) = self.shop.close().await {
            trouble.get_or_insert(failed);
        }
        if trouble.is_none()
            && let Over::Failed(failed) = self.stage(Stage::Draining, Instant::now() + DRAIN_MOST).await
        {
            trouble = Some(failed);
        }
        if let Err(failed) = self.keeper.stop().await {
            trouble.get_or_insert(failed);
        }
        self.settle(trouble).await
    }

    /// Plays one stage: shows it, and keeps an eye on everything that could fail.
    async fn stage(&mut self, stage: Stage, until: Instant) -> Over {
        let mut tick = interval(self.screen.every());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let happened = tokio::select! {
                () = sleep_until(until) => return Over::Ended,
                () = self.asks.next() => return Over::Ended,
                happened = self.keeper.next() => happened,
                failed = self.shop.failed() => Err(failed),
                _ = tick.tick() => match self.draw(stage).await {
                    Ok(0) if stage == Stage::Draining => return Over::Ended,
                    Ok(_) if self.reader.has_ended() => return Over::Ended,
                    drawn => drawn.map(drop),
                },
            };
            if let Err(failed) = happened {
                return Over::Failed(failed);
            }
        }
    }

    /// Shows the figures as they are; gives how many events are pending.
    async fn draw(&mut self, stage: Stage) -> Result<u64, Trouble> {
        let pending = self.table.pending().await?;
        self.most_pending = self.most_pending.max(pending);
        let (tally, delays) = {
            let account = lock(&self.account);
            (account.tally(), account.lately())
        };
        self.screen.draw(&Figures {
            stage,
            elapsed: self.opened.elapsed(),
            limit: self.settings.lasts,
            tally,
            pending,
            most_pending: self.most_pending,
            delays,
            relay: self.keeper.shown(),
            kills: self.keeper.kills(),
        });
        Ok(pending)
    }

    /// Reads the rest and holds the account against the table. Nobody writes or publishes any more.
    async fn settle(mut self, mut trouble: Option<Trouble>) -> Result<Verdict, Trouble> {
        if let Err(failed) = self.reader.finish().await {
            trouble.get_or_insert(failed);
        }
        self.draw(Stage::Draining).await?;
        let rows = self.table.rows().await?;
        self.table.close().await;
        if let Some(trouble) = &trouble {
            self.screen.say(&trouble.told());
        }
        let course =
            Course { took: self.opened.elapsed(), kills: self.keeper.kills(), trouble: trouble.map(|trouble| trouble.to_string()) };
        Ok(Verdict::of(&lock(&self.account), &rows, course))
    }
}
