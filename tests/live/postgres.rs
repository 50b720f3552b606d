//! The PostgreSQL source on real servers: what every source must do, on the oldest and the newest version, and what only PostgreSQL has.

mod cursor;
mod mapping;
mod marks;
mod past;
mod plans;
mod setup;
mod shape;
mod world;
mod zombies;

/// What every source must do, on PostgreSQL 15.
mod on_15 {
    use super::world::{Plain, World};
    use crate::source_conformance as source;

    source::source_conformance!(World<15, Plain>);
    source::source_conformance!(beyond_memory World<15, Plain>);
}

/// The same on PostgreSQL 18.
mod on_18 {
    use super::world::{Plain, World};
    use crate::source_conformance as source;

    source::source_conformance!(World<18, Plain>);
    source::source_conformance!(beyond_memory World<18, Plain>);
}

/// The same with a table of one's own, whose identity is its number: what a row says decides which event it is.
mod mapped {
    use super::mapping::Numbered;
    use super::world::World;
    use crate::source_conformance as source;

    source::source_conformance!(World<18, Numbered>);
    source::source_conformance!(beyond_memory World<18, Numbered>);
}

/// The same through PgBouncer in transaction mode: nothing may rest on the session.
mod pooled {
    use super::world::{Pooled, World};
    use crate::source_conformance as source;

    source::source_conformance!(World<15, Pooled>);
    source::source_conformance!(beyond_memory World<15, Pooled>);
}
