//! The seam to the table, over the simulated database.

use std::collections::BTreeSet;
use std::sync::Arc;

use outboxd::cursor::{Form, Listing};
use outboxd::fault::{Cause, Fault, Halt};
use outboxd::journal::{History, Owner};
use outboxd::park::{Done, SetAside};
use outboxd::sink::{Fence, Noted, Published};
use outboxd::source::{ClaimNumber, Fetched, Marker, Pins, Query, Reader, Source, Standing, Tenure};

use super::database::Database;
use super::mutants::Mutant;
use super::net::{Broken, Net, Side, pause};
use super::sink::SimSink;
use super::world::{Stage, World};

/// The table as one process reaches it.
pub struct SimSource {
    pub net: Net,
}

/// It could not be reached.
pub fn gone(broken: Broken) -> Fault {
    match broken {
        Broken::Before | Broken::Unknown => Fault::database("connection", "simulated"),
        Broken::Full => Fault::database("resources", "simulated"),
    }
}

/// What a commit without an answer means to the verb that asked for it.
fn in_doubt(cause: Cause) -> impl Fn(Broken) -> Fault {
    move |broken| match broken {
        Broken::Before => gone(broken),
        Broken::Unknown | Broken::Full => Fault::in_doubt(cause, "simulated"),
    }
}

impl SimSource {
    fn stage(&self, stage: Stage) {
        self.net.world.lock().stage(self.net.process, stage);
    }
}

impl Source for SimSource {
    type Tenure = SimTenure;

    async fn look(&self) -> Result<Standing, Fault> {
        if self.net.world.lock().is(Mutant::InitBeforeLook) {
            let net = Net { side: Side::Kafka, ..self.net.clone() };
            SimSink { net, kept: Arc::default() }.init().await?;
        }
        let look = |world: &mut World| {
            let mut standing = world.database.standing();
            if world.is(Mutant::NoIdentity) {
                standing.accepted_addresses.push(standing.address.clone());
            }
            standing
        };
        self.net.call(look).await.map_err(gone)
    }

    async fn claim(&self, owner: &Owner, claim: ClaimNumber, _fence: &Fence) -> Result<SimTenure, Fault> {
        self.stage(Stage::Claiming);
        let owner = owner.clone();
        let ask = move |world: &mut World| world.claim(&owner, claim).map(|standing| (standing, world.database.generation));
        let (standing, generation) = self.net.write(ask).await.map_err(gone)??;
        Ok(SimTenure { net: self.net.clone(), claim, standing, generation })
    }

    async fn halt(&self, halt: &Halt, seen: &Standing) -> Result<bool, Fault> {
        let (halt, seen) = (halt.clone(), seen.clone());
        self.net.write(move |world| world.declare(&halt, &seen)).await.map_err(gone)
    }
}

/// A claim on the table.
pub struct SimTenure {
    net: Net,
    claim: ClaimNumber,
    standing: Standing,
    generation: u64,
}

impl Tenure for SimTenure {
    type Reader = SimReader;
    type Marker = SimMarker;

    fn standing(&self) -> &Standing {
        &self.standing
    }

    async fn settle<H: History>(self, mut history: H) -> Result<(SimReader, SimMarker), Fault> {
        let claim = self.claim;
        self.net.world.lock().stage(self.net.process, Stage::Settling);
        while let Some((record, at)) = history.next().await? {
            self.net.write(move |world| world.settle_one(claim, &record, at)).await.map_err(in_doubt(Cause::Settle))??;
        }
        let forget = move |world: &mut World| {
            world.database.forget_parked();
            world.database.halted = None;
        };
        self.net.write(forget).await.map_err(gone)?;
        self.net.world.lock().stage(self.net.process, Stage::Elsewhere);
        let reader = SimReader { net: self.net.clone(), claim, generation: self.generation, kept: None };
        Ok((reader, SimMarker { net: self.net, claim }))
    }
}

/// Fetches.
pub struct SimReader {
    net: Net,
    claim: ClaimNumber,
    generation: u64,
    /// A mutant's: the snapshot of the next fetch.
    kept: Option<Database>,
}

impl SimReader {
    /// The writers as a statement lists them that is being executed.
    fn listing(&self, head: i64) -> Result<Listing, Fault> {
        let mut world = self.net.world.lock();
        let (generation, mut listing) = world.seen_by(self.net.process, |world| (world.database.generation, world.listing()));
        if generation != self.generation && !world.plan.pooler {
            return Err(gone(Broken::Before));
        }
        if world.is(Mutant::NoLastValue) {
            listing.last_value = listing.last_value.max(head);
        }
        Ok(listing)
    }

    /// What mutants keep of the database for the next fetch; `fresh`: the one before did not use such a thing.
    fn keep(&mut self, fresh: bool) {
        let mut world = self.net.world.lock();
        if world.is(Mutant::SnapshotAhead) || world.is(Mutant::SnapshotKept) && fresh {
            self.kept = Some(world.seen_by(self.net.process, |world| world.database.clone()));
        }
    }

    /// A moment between two steps of the server, now and then.
    async fn moment(&self) {
        let moment = {
            let mut world = self.net.world.lock();
            if world.chance(400) { world.ms(1..=4) } else { std::time::Duration::ZERO }
        };
        pause(moment).await;
    }
}

impl Reader for SimReader {
    fn allows_cursor(&self) -> bool {
        self.net.world.lock().plan.cursor
    }

    async fn positions(&mut self) -> Result<Listing, Fault> {
        let first = self.net.call(|world| world.listing()).await.map_err(gone)?;
        let second = self.net.call(|world| world.listing()).await.map_err(gone)?;
        let world = self.net.world.lock();
        if world.is(Mutant::NoHoldersAtStart) {
            return Ok(Listing { holders: Default::default(), ..first });
        }
        let (number, holders) = if world.is(Mutant::HoldersBeforeNumber) { (second, first) } else { (first, second) };
        Ok(Listing { last_value: number.last_value, holders: holders.holders })
    }

    async fn fetch(&mut self, query: &Query) -> Result<Fetched, Fault> {
        let (claim, generation, asked) = (self.claim, self.generation, query.clone());
        let (before, two) = {
            let world = self.net.world.lock();
            (world.is(Mutant::HoldersFirst), world.is(Mutant::TwoStatements))
        };
        let early = if before { Some(self.listing(query.head)?) } else { None };
        if before {
            self.moment().await;
        }
        let kept = self.kept.take().filter(|_| query.form == Form::Cursor);
        let fresh = kept.is_none();
        let snapshot = move |world: &mut World| {
            if world.database.generation != generation && !world.plan.pooler {
                return Err(gone(Broken::Before));
            }
            world.guards(claim)?;
            world.count_gaps(&asked);
            Ok(world.select_in(kept, &asked))
        };
        let mut rows = self.net.call(snapshot).await.map_err(gone)??;
        self.keep(fresh);
        self.moment().await;
        if two {
            let mut world = self.net.world.lock();
            rows = world.seen_by(self.net.process, |world| world.second_statement(rows, query));
        }
        let listing = match early {
            Some(early) => early,
            None => self.listing(query.head)?,
        };
        Ok(Fetched { listing, batch: rows.map(Arc::new) })
    }
}

/// Marks.
pub struct SimMarker {
    net: Net,
    claim: ClaimNumber,
}

impl Marker for SimMarker {
    async fn mark(&mut self, published: &Published) -> Result<(), Fault> {
        let (claim, at) = (self.claim, published.journalled());
        let rows = published.batch().events().map(|event| (event.seq, event.id.uuid().unwrap_or_default())).collect::<Vec<_>>();
        self.net.world.lock().processes[self.net.process].marking = true;
        let marked = self.net.write(move |world| world.mark_batch(claim, &rows, at)).await.map_err(in_doubt(Cause::Mark));
        let mut world = self.net.world.lock();
        let process = &mut world.processes[self.net.process];
        process.marking = false;
        if process.stage == Stage::Committed {
            process.stage = Stage::Elsewhere;
        }
        if world.is(Mutant::MarkIgnored) {
            return Ok(());
        }
        marked?
    }

    async fn note(&mut self, noted: &Noted) -> Result<(), Fault> {
        let (claim, at) = (self.claim, noted.at());
        self.net.write(move |world| world.note(claim, at)).await.map_err(in_doubt(Cause::Mark))?
    }

    async fn pin(&mut self, pins: &Pins) -> Result<(), Fault> {
        let (claim, pins) = (self.claim, pins.clone());
        self.net.write(move |world| world.pin(claim, pins)).await.map_err(gone)?
    }

    async fn set_aside(&mut self, what: &SetAside) -> Result<Done, Fault> {
        let (claim, what) = (self.claim, what.clone());
        if self.net.world.lock().is(Mutant::ParkUnguarded) {
            let compare = move |world: &mut World| world.fit_to_park(claim, &what);
            let what = self.net.call(compare).await.map_err(gone)??;
            let lock = self.net.world.lock().ms(0..=900);
            pause(lock).await;
            return self.net.write(move |world| Ok(world.put_aside(&what))).await.map_err(gone)?;
        }
        let park = move |world: &mut World| world.fit_to_park(claim, &what).map(|what| world.put_aside(&what));
        self.net.write(park).await.map_err(gone)?
    }

    async fn let_go(&mut self, topics: &BTreeSet<String>) -> Result<(), Fault> {
        let (claim, topics) = (self.claim, topics.clone());
        self.net.write(move |world| world.let_go(claim, &topics)).await.map_err(gone)?
    }
}

impl World {
    /// Where the sequence stands, and who is writing.
    fn listing(&self) -> Listing {
        let mut listing = self.database.listing();
        if self.is(Mutant::IsCalledIgnored) {
            listing.last_value = listing.last_value.max(1);
        }
        if self.is(Mutant::GraceTime) {
            listing.holders.retain(|holder| self.is_young(holder));
        }
        if self.is(Mutant::PreparedUnseen) {
            listing.holders.retain(|holder| !holder.starts_with("-1/"));
        }
        listing
    }

    /// A writer that began lately.
    fn is_young(&self, holder: &str) -> bool {
        let number: u64 = holder.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        self.now.duration_since(self.database.open.get(&number).and_then(|open| open.since).unwrap_or(self.now)).as_millis() < 20
    }

    fn count_gaps(&mut self, query: &Query) {
        let in_gap = |seq: &i64| query.gaps.iter().any(|gap| (gap.low..=gap.high).contains(seq));
        let late = self.database.rows.iter().filter(|(seq, row)| in_gap(seq) && !row.sent).count();
        if late > 0 {
            self.hit("a late commit filled a gap");
        }
        if !query.gaps.is_empty() {
            self.hit("a fetch had gaps to look into");
        }
    }

    /// What is there now, or was there in a snapshot that a mutant has kept.
    fn select_in(&mut self, kept: Option<Database>, query: &Query) -> Option<outboxd::event::Batch> {
        let Some(kept) = kept else { return self.select(query) };
        let now = std::mem::replace(&mut self.database, kept);
        let rows = self.select(query);
        self.database = now;
        rows
    }

    /// What lies above head, from a snapshot of its own.
    fn second_statement(&self, first: Option<outboxd::event::Batch>, query: &Query) -> Option<outboxd::event::Batch> {
        let mut both = outboxd::event::BatchBuilder::new(query.limits);
        let late = self.select(query);
        let below = first.iter().flat_map(|batch| batch.events()).filter(|event| event.seq <= query.head);
        let above = late.iter().flat_map(|batch| batch.events()).filter(|event| event.seq > query.head);
        for event in below.chain(above) {
            both.push(&event);
        }
        both.build()
    }
}
