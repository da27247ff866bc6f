//! What the kernel says of a task, as records carry it.

/// The kernel's name of a task, its NUL included (include/linux/sched.h TASK_COMM_LEN).
pub const COMM_LEN: usize = 16;
