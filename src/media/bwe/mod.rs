//! Send-side bandwidth estimation of one transport.
