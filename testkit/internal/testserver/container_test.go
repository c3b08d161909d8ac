package testserver

import (
	"os/exec"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// A test process that is killed closes the keeper's input without a word. Where there is no Docker there is no keeper.
func TestContainersGoWhenTheKeepersInputEnds(t *testing.T) {
	if !Docker(t) {
		return
	}
	c, err := Run(t.Context(), Spec{Image: image, Port: "5432/tcp", Env: map[string]string{"POSTGRES_PASSWORD": "x", "ADDR": "{addr}"}})
	if err != nil {
		t.Fatal(err)
	}
	inspect := func() error {
		return exec.CommandContext(t.Context(), "docker", "inspect", c.ID).Run()
	}
	if err := inspect(); err != nil {
		t.Fatalf("the container does not run: %v", err)
	}
	binary.mu.Lock()
	end := binary.keeper
	binary.keeper = nil
	binary.mu.Unlock()
	if err := end(); err != nil {
		t.Fatalf("the keeper ended with %v", err)
	}
	if inspect() == nil {
		t.Error("the container outlived the keeper that started it")
	}
}

const image = "postgres:18"
