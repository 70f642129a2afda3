//! Composition: builds the seams from settings, wires the handles, and holds the order of start and stop.
