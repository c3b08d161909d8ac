package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Ask sends a request, with a JSON body or none, and reads the answer, which must have the status that is wanted. Any
// other is an error, in the words of its problem if it is one.
func Ask(ctx context.Context, method, url string, body any, want int, into any) error {
	var payload io.Reader
	if body != nil {
		p, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(p)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, payload)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return Refusal(url, res.Status, answer)
	}
	return json.Unmarshal(answer, into)
}

// Refusal is the error of an answer that is not the one that was hoped for, in the words of its problem if it is one.
func Refusal(url, status string, answer []byte) error {
	var problem struct{ Detail string }
	if json.Unmarshal(answer, &problem) == nil && problem.Detail != "" {
		return errors.New(problem.Detail)
	}
	return fmt.Errorf("%s answers %s: %s", url, status, answer)
}
