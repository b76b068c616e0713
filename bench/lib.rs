//! Small measurements of one room each: one file, one question.
