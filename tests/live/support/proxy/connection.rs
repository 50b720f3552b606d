//! One connection through the proxy: each direction is a reader, a queue and a writer; the weather is the writer's.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Caught, Side, Sky, Trap, Weather};

/// Units that may wait between reader and writer of one direction.
const QUEUE: usize = 256;
const CHUNK_BYTES: usize = 64 * 1024;
/// Above Kafka's own bound for a frame.
const FRAME_BYTES: usize = 128 * 1024 * 1024;

/// What was read at once: a chunk, or a whole frame with its length before it.
struct Unit {
    bytes: Vec<u8>,
    read_at: Instant,
}

/// What the two directions of a connection share.
struct Link {
    sky: Arc<Sky>,
    /// Api keys of the requests whose answers are still to come, by correlation id.
    requests: Mutex<HashMap<i32, i16>>,
    client_cut: watch::Sender<bool>,
}

pub(super) async fn accept(listener: TcpListener, sky: Arc<Sky>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("the proxy runs in its own runtime");
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        sky.accepted.fetch_add(1, Ordering::Relaxed);
        if *sky.weather.borrow() != Weather::Cut {
            tokio::spawn(serve(client, sky.clone()));
        }
    }
}

async fn serve(client: TcpStream, sky: Arc<Sky>) {
    let mut cuts = sky.cuts.subscribe();
    let Ok(server) = TcpStream::connect(("127.0.0.1", sky.server_port.load(Ordering::Relaxed))).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let link = Link { sky, requests: Mutex::default(), client_cut: watch::Sender::new(false) };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (request_in, request_out) = mpsc::channel(QUEUE);
    let (answer_in, answer_out) = mpsc::channel(QUEUE);
    let everything = async {
        tokio::join!(
            read_client(from_client, request_in, &link),
            write(Side::Request, to_server, request_out, &link),
            read(from_server, answer_in, &link),
            write(Side::Answer, to_client, answer_out, &link),
        )
    };
    // Dropping the halves closes both sockets.
    tokio::select! { _ = everything => {}, _ = cuts.changed() => {} }
}

async fn read_client(from: OwnedReadHalf, queue: mpsc::Sender<Unit>, link: &Link) {
    let mut cut = link.client_cut.subscribe();
    tokio::select! { () = read(from, queue, link) => {}, _ = cut.wait_for(|cut| *cut) => {} }
}

async fn read(mut from: OwnedReadHalf, queue: mpsc::Sender<Unit>, link: &Link) {
    loop {
        let unit = if link.sky.frames { read_frame(&mut from).await } else { read_chunk(&mut from).await };
        let Ok(bytes) = unit else { return };
        if queue.send(Unit { bytes, read_at: Instant::now() }).await.is_err() {
            return;
        }
    }
}

async fn read_chunk(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; CHUNK_BYTES];
    let count = from.read(&mut bytes).await?;
    bytes.truncate(count);
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

async fn read_frame(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = usize::try_from(from.read_i32().await?).ok().filter(|length| *length <= FRAME_BYTES);
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; 4 + length];
    bytes[..4].copy_from_slice(&(length as i32).to_be_bytes());
    from.read_exact(&mut bytes[4..]).await?;
    Ok(bytes)
}

async fn write(side: Side, to: OwnedWriteHalf, mut queue: mpsc::Receiver<Unit>, link: &Link) {
    let mut to = Some(to);
    let mut cut = link.client_cut.subscribe();
    loop {
        let unit = tokio::select! {
            unit = queue.recv() => unit,
            _ = cut.wait_for(|cut| *cut), if side == Side::Answer && to.is_some() => { to = None; continue }
        };
        let Some(unit) = unit else { break };
        if !sit_out_weather(side, &unit, link).await || !pass_traps(side, &unit, link).await {
            continue;
        }
        if let Some(to) = &mut to
            && to.write_all(&unit.bytes).await.is_err()
        {
            break;
        }
    }
    if let Some(mut to) = to {
        let _ = to.shutdown().await;
    }
}

/// Waits as long as the weather wants; false if the unit is lost.
async fn sit_out_weather(side: Side, unit: &Unit, link: &Link) -> bool {
    let mut weather = link.sky.weather.subscribe();
    loop {
        let now = *weather.borrow_and_update();
        match now {
            Weather::Pass => return true,
            Weather::DropAnswers => return side == Side::Request,
            Weather::Delay(by) => {
                tokio::time::sleep_until(unit.read_at + by).await;
                return true;
            }
            Weather::Freeze | Weather::Cut => drop(weather.changed().await),
        }
    }
}

/// Waits as long as a trap holds the frame; false if it is lost.
async fn pass_traps(side: Side, unit: &Unit, link: &Link) -> bool {
    let Some(trap) = find_trap(side, unit, link) else { return true };
    let is_armed =
        trap.state.send_if_modified(|state| *state == Caught::NotYet && std::mem::replace(state, Caught::Held) == Caught::NotYet);
    if is_armed && trap.lose {
        return false;
    }
    let mut state = trap.state.subscribe();
    loop {
        let now = *state.borrow_and_update();
        match now {
            Caught::Released => return true,
            Caught::ClientCut => drop(link.client_cut.send_replace(true)),
            Caught::NotYet | Caught::Held => {}
        }
        let _ = state.changed().await;
    }
}

fn find_trap(side: Side, unit: &Unit, link: &Link) -> Option<Trap> {
    let number = |at: usize| unit.bytes.get(at..at + 4).map(|b| i32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let api_key = match side {
        _ if !link.sky.frames => return None,
        Side::Request => {
            let api_key = (number(4)? >> 16) as i16;
            link.requests.lock().unwrap().insert(number(8)?, api_key);
            api_key
        }
        Side::Answer => link.requests.lock().unwrap().remove(&number(4)?)?,
    };
    let mut traps = link.sky.traps.lock().unwrap();
    let index = traps.iter().position(|trap| trap.side == side && trap.api_key == api_key)?;
    Some(traps.remove(index))
}
