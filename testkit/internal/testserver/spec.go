package testserver

// Spec says what container a test needs. It is what the kits send to the keeper.
type Spec struct {
	Image string
	Port  string // the one published, such as "5432/tcp"
	Cmd   []string
	Env   map[string]string // "{addr}" in a value stands for the address that clients reach the port at
	User  string            // "" means the image's own
}

// Handle names a container that runs.
type Handle struct {
	ID   string
	Addr string // 127.0.0.1:port; it outlives a restart
}

// State is what became of a container.
type State struct {
	Running  bool
	ExitCode int
	Logs     string // the end of what it wrote, when it does not run or when asked for
}
