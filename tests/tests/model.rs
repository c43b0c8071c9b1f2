//! A model of accept, claim, settle and requeue, of which every interleaving with faults is tried.
//!
//! The order of steps is that of ARCHITECTURE.md, "The life of an event": PostgreSQL commits before Redis has an entry, a
//! claim raises the fencing token, a settlement needs the token of its claim, and a task that Redis can no longer deliver is
//! enqueued again. Variants without one of these rules must fail, so that the model is known to see it.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use stateright::{Checker, Model, Property};

const WORKERS: usize = 2;
/// Faults of one history. More of them only make the search longer: each interleaves with every step of both workers.
const FAULTS: u8 = 3;

/// Rules of the system, one of which a broken variant leaves out.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A settlement needs the fencing token of its claim.
    fencing: bool,
    /// A task that Redis cannot deliver is enqueued again.
    requeue: bool,
    /// The answer is sent after the commit.
    answer_after_commit: bool,
    /// A claim skips tasks that have a lease.
    exclusive_claim: bool,
}

const RULES: Rules = Rules { fencing: true, requeue: true, answer_after_commit: true, exclusive_claim: true };

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    Absent,
    Waiting,
    Leased,
    Settled,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    /// It has claimed the task, and runs it.
    Runs {
        token: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// The client has a 202.
    answered: bool,
    task: Task,
    token: u8,
    /// Times that the effects of the task were committed.
    effects: u8,
    /// The publisher has sent the task to Redis, or dropped it.
    published: bool,
    /// Entries in Redis that a worker can still get.
    entries: u8,
    workers: [Worker; WORKERS],
    faults: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Commit,
    Answer,
    /// The API adds an entry after the commit.
    Publish,
    Deliver(usize),
    Settle(usize),
    Requeue,
    // Faults.
    /// Redis is emptied, or fails over to a replica that lagged.
    LoseEntries,
    /// Redis fails over to a replica that still has an entry which was acknowledged.
    RepeatEntry,
    /// The lease ends, because its worker is dead; or it is stopped or cut off, and comes back.
    LeaseEnds,
    /// A worker is killed.
    Kill(usize),
}

struct System(Rules);

impl Model for System {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let workers = [const { Worker::Idle }; WORKERS];
        vec![State {
            answered: false,
            task: Task::Absent,
            token: 0,
            effects: 0,
            published: false,
            entries: 0,
            workers,
            faults: FAULTS,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let State { answered, task, published, entries, workers, faults, .. } = state;
        if *task == Task::Absent && (self.0.answer_after_commit || *answered) {
            steps.push(Step::Commit);
        }
        if !answered && (*task != Task::Absent || !self.0.answer_after_commit) {
            steps.push(Step::Answer);
        }
        if *task != Task::Absent && !published {
            steps.push(Step::Publish);
        }
        if *task == Task::Waiting && *entries == 0 && self.0.requeue {
            steps.push(Step::Requeue);
        }
        for (index, worker) in workers.iter().enumerate() {
            match worker {
                Worker::Idle if *entries > 0 => steps.push(Step::Deliver(index)),
                Worker::Idle => {}
                Worker::Runs { .. } => steps.push(Step::Settle(index)),
            }
        }
        let is_held = workers.contains(&Worker::Runs { token: state.token });
        if *task == Task::Leased && (!is_held || *faults > 0) {
            steps.push(Step::LeaseEnds);
        }
        if *faults == 0 {
            return;
        }
        if *entries > 0 {
            steps.push(Step::LoseEntries);
        }
        if *entries == 0 && *task != Task::Absent {
            steps.push(Step::RepeatEntry);
        }
        steps.extend(
            workers.iter().enumerate().filter(|(_, worker)| **worker != Worker::Idle).map(|(i, _)| Step::Kill(i)),
        );
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Commit => state.task = Task::Waiting,
            Step::Answer => state.answered = true,
            Step::Publish => (state.published, state.entries) = (true, state.entries + 1),
            Step::Requeue => state.entries += 1,
            Step::Deliver(worker) => {
                state.entries -= 1;
                if state.task == Task::Waiting || (state.task == Task::Leased && !self.0.exclusive_claim) {
                    state.token += 1;
                    state.task = Task::Leased;
                    state.workers[worker] = Worker::Runs { token: state.token };
                }
            }
            Step::Settle(worker) => {
                let Worker::Runs { token } = state.workers[worker] else { return None };
                let is_current = state.task == Task::Leased && state.token == token;
                if is_current || !self.0.fencing {
                    state.task = Task::Settled;
                    state.effects += 1;
                }
                state.workers[worker] = Worker::Idle;
            }
            Step::LoseEntries => (state.entries, state.faults) = (0, state.faults - 1),
            Step::RepeatEntry => (state.entries, state.faults) = (1, state.faults - 1),
            Step::LeaseEnds => {
                let is_held = state.workers.contains(&Worker::Runs { token: state.token });
                state.task = Task::Waiting;
                state.faults -= u8::from(is_held);
            }
            Step::Kill(worker) => (state.workers[worker], state.faults) = (Worker::Idle, state.faults - 1),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no event is processed twice", |_, state: &State| state.effects <= 1),
            Property::always("an answered event is stored", |_, state: &State| {
                !state.answered || state.task != Task::Absent
            }),
            Property::eventually("each event is processed", |_, state: &State| state.effects == 1),
            Property::sometimes("an expired worker is refused", |_, state: &State| {
                state.task == Task::Settled && state.workers.iter().any(|worker| *worker != Worker::Idle)
            }),
        ]
    }
}

/// The properties that do not hold, and the number of states.
fn broken(rules: Rules) -> (Vec<&'static str>, usize) {
    let checker = System(rules).checker().spawn_bfs().join();
    let model = System(rules);
    let found = checker.discoveries();
    let is_wrong = |name: &str, is_example: bool| found.contains_key(name) != is_example;
    let wrong = model.properties().into_iter().filter_map(|property| {
        let is_example = matches!(property.expectation, stateright::Expectation::Sometimes);
        is_wrong(property.name, is_example).then_some(property.name)
    });
    (wrong.collect(), checker.unique_state_count())
}

#[test]
fn every_history_processes_each_accepted_event_once() {
    let (wrong, states) = broken(RULES);
    println!("{states} states");
    assert_eq!(wrong, Vec::<&str>::new());
    assert!(states > 100, "{states}");
}

#[test]
fn model_without_one_rule_fails() {
    for (rules, expected) in [
        (Rules { fencing: false, ..RULES }, "no event is processed twice"),
        (Rules { requeue: false, ..RULES }, "each event is processed"),
        (Rules { answer_after_commit: false, ..RULES }, "an answered event is stored"),
    ] {
        let (wrong, _) = broken(rules);
        assert!(wrong.contains(&expected), "{rules:?}: {wrong:?}");
    }
    // A claim of a leased task is harmless, because its fencing token refuses the other settlement.
    assert_eq!(broken(Rules { exclusive_claim: false, ..RULES }).0, Vec::<&str>::new());
}
