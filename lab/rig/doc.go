// Package rig is what looks at the whole system from outside stands on: Apache Kafka and PostgreSQL in containers, and
// the real binaries as processes of their own, which can be stopped, killed, frozen and started again where they were.
package rig
