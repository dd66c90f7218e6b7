// What the Go program does besides being a client: it is started, runs steps and prints a line for each.
//
// Owns: the Go side of the contract that tests/clients/programs.py describes. The program is started as
// `PROGRAM CLIENT HOST PORT [STEP...]`.

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"time"
)

const longestStep = 15 * time.Second

// step returns what it has to tell, or what went wrong.
type step struct {
	name string
	body func(context.Context) (string, error)
}

type arguments struct {
	client, address, password string
	only                      []string
}

func given() arguments {
	return arguments{
		client:   os.Args[1],
		address:  os.Args[2] + ":" + os.Args[3],
		password: os.Getenv("REDIS_PASSWORD"),
		only:     os.Args[4:],
	}
}

func say(line map[string]any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

// askFor comes back once `what` was done to the server that this program is connected to.
func askFor(what string) {
	say(map[string]any{"ask": what})
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // the end of the input is an answer as well
}

func run(steps []step, only []string) {
	for _, one := range steps {
		if len(only) > 0 && !contains(only, one.name) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), longestStep)
		detail, err := one.body(ctx)
		cancel()
		if err != nil {
			detail = fmt.Sprintf("%T: %v", err, err)
		}
		say(map[string]any{"step": one.name, "ok": err == nil, "detail": detail})
	}
}

func contains(names []string, wanted string) bool {
	for _, name := range names {
		if name == wanted {
			return true
		}
	}
	return false
}

// checks collects the first thing that is not as it should be, so that a step reads as a list of calls.
type checks struct{ err error }

func (c *checks) same(found, wanted any, what string) {
	if c.err == nil && !reflect.DeepEqual(found, wanted) {
		c.err = fmt.Errorf("%s: %#v instead of %#v", what, found, wanted)
	}
}

func (c *checks) fine(err error, what string) {
	if c.err == nil && err != nil {
		c.err = fmt.Errorf("%s: %w", what, err)
	}
}

// reply is what every command of go-redis returns.
type reply[T any] interface{ Result() (T, error) }

func is[T any](c *checks, command reply[T], wanted T, what string) {
	found, err := command.Result()
	c.fine(err, what)
	c.same(found, wanted, what)
}
