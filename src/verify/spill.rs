//! Sorting more than fits into memory: runs of numbers in one nameless file, merged while they are read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// Bytes that one sorter keeps in memory; what is more goes to the file.
const KEPT_BYTES: usize = 16 << 20;
/// Bytes of each run that are read ahead, at least and at most.
const AHEAD: (usize, usize) = (4 << 10, 256 << 10);
/// Bytes of one number.
const WORD: usize = 8;

/// A fixed number of numbers, compared from the left.
pub(crate) type Item<const N: usize> = [u64; N];

/// Takes items in any order.
pub(crate) struct Sorter<const N: usize> {
    folder: PathBuf,
    kept: usize,
    buffer: Vec<Item<N>>,
    file: Option<File>,
    /// Where each run ends in the file, in items.
    ends: Vec<u64>,
}

impl<const N: usize> Sorter<N> {
    /// An empty one, which makes its file in `folder` if it needs one at all.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self::keeping(folder, KEPT_BYTES / (N * WORD))
    }

    /// [`Sorter::new`] with another bound of items in memory.
    fn keeping(folder: PathBuf, kept: usize) -> Self {
        Self { folder, kept, buffer: Vec::new(), file: None, ends: Vec::new() }
    }

    /// All that was taken so far; an empty one stays.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self::keeping(self.folder.clone(), self.kept);
        std::mem::replace(self, empty)
    }

    /// Takes one item.
    pub(crate) fn push(&mut self, item: Item<N>) -> io::Result<()> {
        self.buffer.push(item);
        if self.buffer.len() >= self.kept { self.write_run() } else { Ok(()) }
    }

    /// All of them in order.
    pub(crate) fn sorted(mut self) -> io::Result<Sorted<N>> {
        let Some(file) = &self.file else {
            self.buffer.sort_unstable();
            return Ok(Sorted { memory: Some(self.buffer.into_iter()), file: None, runs: Vec::new(), heap: BinaryHeap::new() });
        };
        let file = file.try_clone()?;
        if !self.buffer.is_empty() {
            self.write_run()?;
        }
        let items = (KEPT_BYTES / self.ends.len()).clamp(AHEAD.0, AHEAD.1) / (N * WORD);
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let runs = starts.zip(self.ends.iter().copied()).map(|(next, end)| Run { next, end, items, ahead: Vec::new().into_iter() });
        let mut sorted = Sorted { memory: None, file: Some(file), runs: runs.collect(), heap: BinaryHeap::new() };
        (0..sorted.runs.len()).try_for_each(|run| sorted.refill(run))?;
        Ok(sorted)
    }

    fn write_run(&mut self) -> io::Result<()> {
        self.buffer.sort_unstable();
        let start = self.ends.last().copied().unwrap_or(0);
        let bytes: Vec<u8> = self.buffer.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(nameless(&self.folder)?),
        };
        file.write_all_at(&bytes, start * (N * WORD) as u64)?;
        self.ends.push(start + self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }
}

/// A file that is gone when nobody has it open any more.
fn nameless(folder: &std::path::Path) -> io::Result<File> {
    let path = folder.join(format!("outboxd-verify-{:016x}", fastrand::u64(..)));
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(told)?;
    std::fs::remove_file(&path).map_err(told)?;
    Ok(file)
}

/// A part of the file that is in order.
struct Run<const N: usize> {
    next: u64,
    end: u64,
    items: usize,
    ahead: std::vec::IntoIter<Item<N>>,
}

impl<const N: usize> Run<N> {
    fn next(&mut self, file: &File) -> io::Result<Option<Item<N>>> {
        if let Some(item) = self.ahead.next() {
            return Ok(Some(item));
        }
        let count = (self.end - self.next).min(self.items as u64);
        let mut bytes = vec![0; count as usize * N * WORD];
        file.read_exact_at(&mut bytes, self.next * (N * WORD) as u64)?;
        self.next += count;
        let (words, _) = bytes.as_chunks::<WORD>();
        let item = |words: &[[u8; WORD]]| std::array::from_fn(|i| u64::from_le_bytes(words[i]));
        self.ahead = words.chunks_exact(N).map(item).collect::<Vec<_>>().into_iter();
        Ok(self.ahead.next())
    }
}

/// Items in order.
pub(crate) struct Sorted<const N: usize> {
    /// All of them, where they fitted.
    memory: Option<std::vec::IntoIter<Item<N>>>,
    file: Option<File>,
    runs: Vec<Run<N>>,
    heap: BinaryHeap<Reverse<(Item<N>, usize)>>,
}

impl<const N: usize> Sorted<N> {
    /// The next item, without taking it.
    pub(crate) fn peek(&self) -> Option<Item<N>> {
        match &self.memory {
            Some(items) => items.as_slice().first().copied(),
            None => self.heap.peek().map(|Reverse((item, _))| *item),
        }
    }

    /// Takes the next item.
    pub(crate) fn next(&mut self) -> io::Result<Option<Item<N>>> {
        if let Some(items) = &mut self.memory {
            return Ok(items.next());
        }
        let Some(Reverse((item, run))) = self.heap.pop() else { return Ok(None) };
        self.refill(run)?;
        Ok(Some(item))
    }

    /// Takes the next item if it belongs to the group.
    pub(crate) fn next_if(&mut self, belongs: impl FnOnce(Item<N>) -> bool) -> io::Result<Option<Item<N>>> {
        if self.peek().is_some_and(belongs) { self.next() } else { Ok(None) }
    }

    fn refill(&mut self, run: usize) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if let Some(item) = self.runs[run].next(file)? {
            self.heap.push(Reverse((item, run)));
        }
        Ok(())
    }
}

/// A signed number as one that sorts the same.
pub(crate) fn word(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}

/// The number of a [`word`].
pub(crate) fn number(word: u64) -> i64 {
    (word ^ (1 << 63)).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut sorted: Sorted<2>) -> Vec<Item<2>> {
        std::iter::from_fn(|| sorted.next().expect("it is there")).collect()
    }

    #[test]
    fn what_does_not_fit_comes_back_in_order_and_leaves_no_file() {
        let folder = std::env::temp_dir().join(format!("outboxd-spill-{}", fastrand::u64(..)));
        std::fs::create_dir(&folder).expect("it is there");
        let mut random = fastrand::Rng::with_seed(7);
        let items: Vec<Item<2>> = (0..10_000).map(|_| [random.u64(..50), random.u64(..)]).collect();
        for kept in [1_000_000, 777, 64] {
            let mut sorter = Sorter::keeping(folder.clone(), kept);
            items.iter().for_each(|item| sorter.push(*item).expect("it is there"));
            let mut expected = items.clone();
            expected.sort_unstable();
            assert_eq!(all(sorter.sorted().expect("it is there")), expected, "{kept} in memory");
        }
        assert_eq!(std::fs::read_dir(&folder).expect("it is there").count(), 0);
        std::fs::remove_dir(&folder).expect("it is there");
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_by_its_name() {
        let mut sorter = Sorter::<2>::keeping("/nowhere/at/all".into(), 1);
        let error = sorter.push([1, 2]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }

    #[test]
    fn signed_numbers_keep_their_order() {
        let numbers = [i64::MIN, -5, -1, 0, 1, 7, i64::MAX];
        assert!(numbers.map(word).is_sorted());
        assert_eq!(numbers.map(word).map(number), numbers);
    }
}
