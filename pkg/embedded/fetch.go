package embedded

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const repositoryEnv = "CONVERGE_MAVEN_REPOSITORY"

// requests stands in for the process's HTTP client, which the library uses: with a time limit, and with a memory of why
// a request failed, which the library does not tell.
type requests struct{ failure error }

func watchRequests() *requests {
	r := &requests{}
	http.DefaultClient = &http.Client{Transport: r, Timeout: 10 * time.Minute}
	return r
}

func (r *requests) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	switch {
	case err != nil:
		r.failure = err
	case resp.StatusCode != http.StatusOK:
		r.failure = fmt.Errorf("%s: %s", req.URL.Redacted(), resp.Status)
	}
	return resp, err
}

// fetchError says what is missing and how to get it.
func (r *requests) fetchError(err error) error {
	if r.failure != nil {
		err = fmt.Errorf("%w: %w", err, r.failure)
	}
	return fmt.Errorf(`fetch PostgreSQL %[1]s: %[2]w
It is the Maven artifact io.zonky.test.postgres:embedded-postgres-binaries-<system>-<machine>:%[1]s.
Set %[3]s to a Maven repository that has it (HTTPS_PROXY is heeded),
or use a server of your own and set the *_DATABASE_URL variables to it`, PostgresVersion, err, repositoryEnv)
}

// redacted is a repository's address without a password, for people to read.
func redacted(repository string) string {
	if repository == "" {
		return "Maven Central"
	}
	u, err := url.Parse(repository)
	if err != nil {
		return repository
	}
	return strings.TrimSuffix(u.Redacted(), "/")
}
