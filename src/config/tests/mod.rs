//! The configuration against golden cases, the reference files, and hostile input.

mod golden;
mod hostile;
mod reference;
