package testserver

import (
	"errors"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	up := func(time.Duration) error { return nil }
	down := func(time.Duration) error { return errors.New("no engine") }
	for _, c := range []struct {
		choice string
		ping   func(time.Duration) error
		docker bool
		fails  bool
	}{
		{choice: "", ping: up, docker: true},
		{choice: "", ping: down},
		{choice: "docker", ping: up, docker: true},
		{choice: "docker", ping: down, fails: true}, // where containers are demanded, their tests are not skipped
		{choice: "embedded", ping: up},
		{choice: "dokcer", ping: up, fails: true},
	} {
		docker, err := decide(c.choice, c.ping)
		if docker != c.docker || (err != nil) != c.fails {
			t.Errorf("%s=%q: docker %t, error %v; want %t, an error %t", Env, c.choice, docker, err, c.docker, c.fails)
		}
	}
}
