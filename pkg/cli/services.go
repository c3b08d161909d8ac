package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/saga"
)

// servicesSetting names services and where they answer.
const servicesSetting = "CONVERGE_SERVICES"

// askTimeout bounds the question for a declaration, which a service answers from memory.
const askTimeout = 10 * time.Second

// given are the places that CONVERGE_SERVICES names.
func (c *Call) given() ([]Address, error) {
	s := app.NewSettings(c.getenv)
	var places []Address
	for _, part := range s.List(servicesSetting, nil, "services and where they answer") {
		name, at, _ := strings.Cut(part, "=")
		u, err := url.Parse(at)
		if err != nil || name == "" || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			s.Reject(servicesSetting, "NAME=URL, or several with commas between them, such as loyalty=http://127.0.0.1:8090")
			return nil, s.Err()
		}
		places = append(places, Address{strings.TrimSpace(name), strings.TrimSuffix(at, "/")})
	}
	return places, nil
}

// addresses are those of the tool and those of CONVERGE_SERVICES; that one decides where both have a service.
func (c *Call) addresses() ([]Address, error) {
	given, err := c.given()
	if err != nil {
		return nil, err
	}
	var all []Address
	for _, p := range c.tool.Places {
		if i := indexOf(given, p.Service); i >= 0 {
			p = given[i]
		}
		all = append(all, p)
	}
	for _, p := range given {
		if indexOf(all, p.Service) < 0 {
			all = append(all, p)
		}
	}
	return all, nil
}

func indexOf(places []Address, service string) int {
	return slices.IndexFunc(places, func(p Address) bool { return p.Service == service })
}

// URL is where a service answers: at the URL that a flag gave, if it did, or where CONVERGE_SERVICES or else the tool
// says.
func (c *Call) URL(service, flag string) (string, error) {
	if flag != "" {
		return strings.TrimSuffix(flag, "/"), nil
	}
	all, err := c.addresses()
	if err != nil {
		return "", err
	}
	if i := indexOf(all, service); i >= 0 {
		return all[i].URL, nil
	}
	return "", fmt.Errorf("there is no service %q here; -url URL or %s=%s=URL says where it answers", service, servicesSetting, service)
}

// declarations are those of all services: compiled in, or asked for, which is the better knowledge where both are to be
// had. Asked are those that CONVERGE_SERVICES names; with running all that are known to answer somewhere, and what is
// compiled in does not count. Services that take no part are left out. One that does not answer is an error: without it
// the whole would be another.
func (c *Call) declarations(ctx context.Context, running bool) ([]saga.Declaration, error) {
	var all []saga.Declaration
	asked, err := c.given()
	if running {
		asked, err = c.addresses()
		if err == nil && len(asked) == 0 {
			err = fmt.Errorf("no service is known that could be asked; %s=NAME=URL,... says where they answer", servicesSetting)
		}
	} else {
		if _, invalid := saga.Topics(1, c.tool.Services...); invalid != nil {
			return nil, invalid
		}
		all = saga.Declarations(c.tool.Services...)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range asked {
		d, err := ask(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("ask %s for its part in the choreography: %w", p.Service, err)
		}
		if i := slices.IndexFunc(all, func(o saga.Declaration) bool { return o.Service == d.Service }); i >= 0 {
			all[i] = d
		} else {
			all = append(all, d)
		}
	}
	return slices.DeleteFunc(all, func(d saga.Declaration) bool { return len(d.Routes) == 0 && len(d.Publishes) == 0 }), nil
}

// ask asks a running service for its declaration.
func ask(ctx context.Context, p Address) (d saga.Declaration, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := Ask(ctx, http.MethodGet, p.URL+app.ChoreographyPath, nil, http.StatusOK, &d); err != nil {
		return d, err
	}
	if d.Service != p.Service {
		return d, fmt.Errorf("%s is the service %q", p.URL, cmp.Or(d.Service, "of no name"))
	}
	for _, r := range d.Routes {
		if r.Topic == "" || r.Group == "" || r.DeadLetters == "" {
			return d, errors.New("a route without a topic, a group or a topic for its dead letters")
		}
	}
	return d, nil
}
