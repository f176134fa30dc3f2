//! Whole messages: each refusal, and the same verdict as a reference parser, however a message is split.

mod heads;
