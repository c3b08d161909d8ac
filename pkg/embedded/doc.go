// Package embedded runs the servers a Converge system needs without installing any: PostgreSQL 18 as a child process,
// and a Kafka-protocol broker inside this one. It is for "make run" and for tests on a machine without Docker;
// production uses real servers.
//
// Both listen on 127.0.0.1 alone, keep their data in a directory of the caller's choosing and find it again at the next
// start. The package works on Linux and macOS, as root and as a normal user.
//
// # The PostgreSQL process
//
// PostgreSQL refuses to run as root, and nobody stops it when the program that started it is killed. So [Postgres]
// starts the current binary a second time as a supervisor: under an unprivileged user when this process is root, in a
// process group of its own (a Ctrl-C in the terminal does not reach it; the caller decides when the database stops),
// with a pipe as its standard input. The pipe closes when this process ends, however it ends, and then the supervisor
// stops the server and exits. The supervisor takes over in this package's init function, before main or TestMain, so a
// program has nothing to do for it but import the package.
package embedded
