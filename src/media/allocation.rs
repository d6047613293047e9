//! How a receiver's bandwidth is shared among its consumers.
