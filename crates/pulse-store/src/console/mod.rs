//! What the console shows, as types that are also its JSON.
//!
//! Each function ends in bounded time, however long the history is: it finds rows by key, or walks a limited number of
//! them and says where it stopped. Counts come from what the scheduler measures anyway, never from a count of a large table.

mod dead_letters;
mod events;
mod overview;
mod page_filter;
mod percentiles;
mod queue;
mod schedules;
mod search;
mod series;
mod task;
mod task_page;
mod task_query;
mod workers;

pub use dead_letters::{DeadGroup, DeadOrder};
pub use events::{EventRow, EventTail, TailFilter};
pub use overview::{GaugesRow, Overview, Rates, StateCounts};
pub use page_filter::PageFilter;
pub use percentiles::Percentiles;
pub use queue::QueueView;
pub use schedules::{Leader, ScheduleRow, Schedules};
pub use search::{Hit, Matched};
pub use series::{NameRow, Point, Range, Series};
pub use task::{TaskDetail, TaskEvent};
pub use task_page::TaskPage;
pub use task_query::TaskRow;
