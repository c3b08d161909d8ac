package embedded

// Supervisor is the process id of the server's supervisor, for a test to kill.
func (s *PostgresServer) Supervisor() int { return s.supervisor.Pid }
