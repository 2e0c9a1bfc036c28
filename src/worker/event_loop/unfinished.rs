//! A queue of connections that have more to do than may be done at once. Each is in it once, and
//! has its turn when those before it have had theirs.

use std::collections::VecDeque;

/// The queue.
#[derive(Default)]
pub struct Unfinished {
    order: VecDeque<usize>,
    /// By connection number: whether the connection is in the queue.
    is_in: Vec<bool>,
}

impl Unfinished {
    /// Puts connection number `key` at the end, unless it is in already.
    pub fn push(&mut self, key: usize) {
        if self.is_in.len() <= key {
            self.is_in.resize(key + 1, false);
        }
        if !std::mem::replace(&mut self.is_in[key], true) {
            self.order.push_back(key);
        }
    }

    /// Takes the first out.
    pub fn pop(&mut self) -> Option<usize> {
        let key = self.order.pop_front()?;
        self.is_in[key] = false;
        Some(key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_once_and_in_the_order_of_its_first_coming() {
        let mut queue = Unfinished::default();
        [3, 1, 3, 2, 1].into_iter().for_each(|key| queue.push(key));
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.pop(), Some(3));
        queue.push(3);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(queue.is_empty());
    }
}
