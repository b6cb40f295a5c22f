//! Single cases with names: what a person would draw on paper.
