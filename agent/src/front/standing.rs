//! The orders that hold, so that a supervisor that died and came back hears them again. All are
//! repeatable.

use crate::local::{Assignment, Notice, Order, Settings};

/// Most notices that are kept.
const NOTICES_MAX: usize = 32;

/// What holds.
#[derive(Debug, Default)]
pub(super) struct Standing {
    contact: bool,
    settings: Settings,
    assignment: Option<Assignment>,
    drain: Option<Order>,
    notices: Vec<Notice>,
    retire: bool,
    shutdown: Option<Order>,
    acknowledged: u64,
    unwanted: bool,
    /// There is a supervisor to come that has not heard.
    owed: bool,
}

impl Standing {
    /// Takes note of an order that is given.
    pub(super) fn note(&mut self, order: &Order) {
        match order {
            Order::Contact { up } => {
                self.contact = *up;
                self.unwanted &= !up;
            }
            Order::Settings(settings) => {
                let held = &mut self.settings;
                held.heartbeat_interval = settings.heartbeat_interval.or(held.heartbeat_interval);
                held.interrupt_lead = settings.interrupt_lead.or(held.interrupt_lead);
                held.stop_grace = settings.stop_grace.or(held.stop_grace);
                held.lifetime = settings.lifetime.or(held.lifetime);
            }
            Order::Assign(assignment) => {
                self.assignment.get_or_insert_with(|| assignment.clone());
            }
            Order::Drain { .. } => self.drain = Some(order.clone()),
            Order::Retire => self.retire = true,
            Order::Shutdown { .. } => self.shutdown = Some(order.clone()),
            Order::Notice(notice) => {
                if self.notices.len() < NOTICES_MAX {
                    self.notices.push(notice.clone());
                }
            }
            Order::Acknowledge { through } => self.acknowledged = self.acknowledged.max(*through),
            Order::Unwanted => self.unwanted = true,
        }
    }

    /// The supervisor is gone: the next one hears all again.
    pub(super) fn owe(&mut self) {
        self.owed = true;
    }

    /// Whether it has yet to hear.
    pub(super) fn is_owed(&self) -> bool {
        self.owed
    }

    /// All that holds, for one that has just come. The assignment is left out once it has arrived.
    pub(super) fn orders(&mut self, assigned: bool) -> Vec<Order> {
        self.owed = false;
        if assigned {
            // It has served; a secret is not kept for longer.
            self.assignment = None;
        }
        let mut orders = vec![Order::Settings(self.settings)];
        if self.acknowledged > 0 {
            orders.push(Order::Acknowledge {
                through: self.acknowledged,
            });
        }
        // Before a drain, after which it would be refused.
        orders.extend(self.assignment.clone().map(Order::Assign));
        orders.push(Order::Contact { up: self.contact });
        orders.extend(self.notices.iter().cloned().map(Order::Notice));
        orders.extend(self.drain.clone());
        orders.extend(self.retire.then_some(Order::Retire));
        orders.extend(self.shutdown.clone());
        orders.extend(self.unwanted.then_some(Order::Unwanted));
        orders
    }
}

#[cfg(test)]
mod tests {
    use super::Standing;
    use crate::local::{Assignment, Order};

    fn assign() -> Order {
        Order::Assign(Assignment {
            runner_name: "r".into(),
            jit_config: "s3cret".to_owned().into(),
        })
    }

    #[test]
    fn a_supervisor_that_comes_late_hears_what_holds_and_an_assignment_once() {
        let mut standing = Standing::default();
        for order in [
            Order::Contact { up: true },
            assign(),
            Order::Acknowledge { through: 3 },
            Order::Acknowledge { through: 2 },
            Order::Drain { deadline: None },
            Order::Retire,
        ] {
            standing.note(&order);
        }
        standing.owe();
        let texts = |orders: Vec<Order>| -> Vec<String> {
            orders.iter().map(|order| format!("{order:?}")).collect()
        };
        let again = texts(standing.orders(false));
        assert!(again[1].contains("through: 3"), "{again:?}");
        assert!(again[2].starts_with("Assign"), "{again:?}");
        assert_eq!(again.last().unwrap(), "Retire");
        assert!(!standing.is_owed());
        let arrived = texts(standing.orders(true));
        assert!(
            !arrived.iter().any(|o| o.starts_with("Assign")),
            "{arrived:?}"
        );
    }

    #[test]
    fn a_stream_makes_an_instance_wanted_again() {
        let mut standing = Standing::default();
        standing.note(&Order::Unwanted);
        standing.note(&Order::Contact { up: true });
        assert!(
            !standing
                .orders(false)
                .iter()
                .any(|order| matches!(order, Order::Unwanted))
        );
    }
}
