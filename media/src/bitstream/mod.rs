//! What the coded bytes say: NAL units, parameter sets, sound headers.
