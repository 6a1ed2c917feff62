//! Faults that are planned for the nth occurrence of something.

/// Plans for the nth occurrence of something. Each plan counts from when it was made.
#[derive(Debug)]
pub struct Planned<T>(Vec<Plan<T>>);

#[derive(Debug)]
struct Plan<T> {
    /// How many occurrences are left until it is due, that one included.
    left: u64,
    /// Whether it is due at every later occurrence too.
    repeats: bool,
    what: T,
}

impl<T> Default for Planned<T> {
    fn default() -> Planned<T> {
        Planned(Vec::new())
    }
}

impl<T: Clone> Planned<T> {
    /// Plans for the `nth` occurrence from now on, counted from 1.
    pub fn add(&mut self, nth: u64, what: T) {
        self.push(nth, false, what);
    }

    /// Plans for the `nth` occurrence from now on, counted from 1, and for all later ones.
    pub fn add_from(&mut self, nth: u64, what: T) {
        self.push(nth, true, what);
    }

    fn push(&mut self, nth: u64, repeats: bool, what: T) {
        self.0.push(Plan {
            left: nth.max(1),
            repeats,
            what,
        });
    }

    /// Counts one occurrence, and returns what was planned for it. If several things are due, the
    /// others stay due for the next occurrences.
    pub fn occur(&mut self) -> Option<T> {
        self.occur_if(|_| true)
    }

    /// As [`Planned::occur`], for an occurrence that counts only for plans of which `counts` is
    /// true.
    pub fn occur_if(&mut self, counts: impl Fn(&T) -> bool) -> Option<T> {
        let mut due = None;
        for (index, plan) in self.0.iter_mut().enumerate() {
            if counts(&plan.what) {
                plan.left = plan.left.saturating_sub(1);
                if plan.left == 0 && due.is_none() {
                    due = Some(index);
                }
            }
        }
        let index = due?;
        let plan = &self.0[index];
        match plan.repeats {
            true => Some(plan.what.clone()),
            false => Some(self.0.remove(index).what),
        }
    }

    /// Forgets all plans.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
