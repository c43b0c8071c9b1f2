//! The part that the statements on matching tasks share.

/// A statement with the rows `walked` of a table: the first `$6` by id after `$5`, and whether each of them matches. So its
/// time is bounded, however few match.
macro_rules! walking {
    ($row:ident, $before:literal, ($table:literal, $state:literal, $indexed:literal, $filtered:literal),
     [$($after:literal),+ $(,)?], $filter:expr, $start:expr, $walk:expr $(, $more:expr)* $(,)?) => {
        sqlx::query_as!(
            $row,
            $before
                + "walked AS (
                 SELECT id, (" + $state + " = ANY ($2::text[])
                        AND ($4::text IS NULL OR errors -> -1 ->> 'reason' = $4)
                        AND ($8::text IS NULL OR starts_with(errors -> -1 ->> 'error', $8))
                        AND " + $filtered + "
                        AND ($9::text IS NULL OR $9 = (
                            SELECT event_name FROM events
                            WHERE events.id = event_ids[1] AND events.created_at = walking.created_at))) AS matches
                 FROM " + $table + " AS walking
                 WHERE id > $5 AND ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($3::bigint IS NULL OR user_id = $3)
                       AND " + $indexed + "
                 ORDER BY id LIMIT $6
             )" $(+ $after)+,
            $filter.ids.as_deref(),
            &$filter.state_names() as &[&str],
            $filter.user_id,
            $filter.reason.as_deref(),
            $start,
            $walk,
            $filter.error_group.as_deref(),
            $filter.error_prefix.as_deref(),
            $filter.event_name.as_deref(),
            $($more),*
        )
    };
}

/// Expands a macro for `tasks`.
macro_rules! in_tasks {
    ($statement:ident! $($rest:tt)*) => {
        $statement!(
            (
                "tasks",
                "task_state(lease_until, attempts)",
                "true",
                "($7::text IS NULL OR error_group(errors -> -1 ->> 'error') = $7)"
            ),
            $($rest)*
        )
    };
}

/// Expands a macro for `dead_tasks`, which has an index by the group of the error.
macro_rules! in_dead_tasks {
    ($statement:ident! $($rest:tt)*) => {
        $statement!(
            ("dead_tasks", "'dead'", "($7::text IS NULL OR error_group = $7)", "true"),
            $($rest)*
        )
    };
}

pub(super) use {in_dead_tasks, in_tasks, walking};
