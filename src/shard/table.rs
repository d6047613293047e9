//! A dense table with stable keys: what a shard holds its transports, producers and consumers in.
//!
//! A key is an index and a generation, so a key that outlives its row finds nothing instead of a
//! stranger. Looking up is one bounds check and one comparison; rows never move.

use std::marker::PhantomData;

pub struct Table<T> {
    rows: Vec<Row<T>>,
    free: Vec<u32>,
    len: usize,
    bound: usize,
}

/// Begins a cache line, with the generation beside what a value has first: looking up touches the line that is needed next.
#[repr(C, align(64))]
struct Row<T> {
    generation: u32,
    value: Option<T>,
}

pub struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Table<T> {
    /// An empty table that refuses to hold more than `bound` rows.
    pub fn new(bound: usize) -> Self {
        Table { rows: Vec::new(), free: Vec::new(), len: 0, bound }
    }

    /// Gives the value back when the table is full.
    pub fn insert(&mut self, value: T) -> Result<Key<T>, T> {
        if self.len == self.bound {
            return Err(value);
        }
        self.len += 1;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.rows.push(Row { generation: 0, value: None });
                (self.rows.len() - 1) as u32
            }
        };
        let row = &mut self.rows[index as usize];
        row.value = Some(value);
        Ok(Key { index, generation: row.generation, of: PhantomData })
    }

    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let row = self.rows.get_mut(key.index as usize).filter(|row| row.generation == key.generation)?;
        let value = row.value.take()?;
        row.generation = row.generation.wrapping_add(1);
        self.free.push(key.index);
        self.len -= 1;
        Some(value)
    }

    #[inline]
    pub fn at(&self, key: Key<T>) -> Option<&T> {
        match self.rows.get(key.index as usize) {
            Some(row) if row.generation == key.generation => row.value.as_ref(),
            _ => None,
        }
    }

    #[inline]
    pub fn at_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        match self.rows.get_mut(key.index as usize) {
            Some(row) if row.generation == key.generation => row.value.as_mut(),
            _ => None,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.rows.iter().enumerate().filter_map(|(index, row)| {
            let key = Key { index: index as u32, generation: row.generation, of: PhantomData };
            row.value.as_ref().map(|value| (key, value))
        })
    }
}

impl<T> Key<T> {
    /// Names no row.
    #[cfg(test)]
    pub fn dangling() -> Self {
        Key::dangling_at(u32::MAX)
    }

    /// Names no row, and differs from others.
    #[cfg(test)]
    pub fn dangling_at(index: u32) -> Self {
        Key { index, generation: u32::MAX, of: PhantomData }
    }

    /// Position in the table: dense, reused after a removal.
    pub fn index(self) -> u32 {
        self.index
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}

impl<T> std::hash::Hash for Key<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}

impl<T> std::fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_removed_row_finds_nothing_even_when_the_row_is_reused() {
        let mut table = Table::new(4);
        let old = table.insert("old").unwrap();
        assert_eq!(table.remove(old), Some("old"));
        let new = table.insert("new").unwrap();
        assert_eq!(new.index(), old.index());
        assert_eq!(table.at(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.at(new), Some(&"new"));
    }

    #[test]
    fn a_full_table_refuses_and_takes_again_after_a_removal() {
        let mut table = Table::new(2);
        let first = table.insert(1).unwrap();
        table.insert(2).unwrap();
        assert_eq!(table.insert(3), Err(3));
        table.remove(first);
        assert!(table.insert(3).is_ok());
        assert_eq!(table.len(), 2);
    }
}
