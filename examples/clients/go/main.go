// Enqueues a JSON job, a MessagePack job and a run of a workflow, and prints each result as it arrives.
// Usage: REDIS_URL=redis://127.0.0.1:6379/0 go run . [json] [msgpack] [run]
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/vmihailenco/msgpack/v5"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tidemill := cmp.Or(os.Getenv("TIDEMILL_NAMESPACE"), "tm") + ":{0}:"
	options := must(redis.ParseURL(cmp.Or(os.Getenv("REDIS_URL"), "redis://127.0.0.1:6379/0")))
	db := redis.NewClient(options)
	caller := fmt.Sprintf("go-%d-%d", os.Getpid(), time.Now().UnixNano())
	replyTo := tidemill + "reply:" + caller

	kinds := os.Args[1:]
	if len(kinds) == 0 {
		kinds = []string{"json", "msgpack", "run"}
	}
	for _, kind := range kinds {
		// an id of our own makes it safe to send twice, and names the result
		stream, job := "jobs:default", []any{"id", caller + "-" + kind, "result_ttl_ms", 60000, "reply_to", replyTo}
		switch kind {
		case "json":
			job = append(job, "tool", "echo", "input", must(json.Marshal(map[string]any{"from": "go", "n": 1})))
		case "msgpack":
			job = append(job, "tool", "echo", "enc", "msgpack", "input", must(msgpack.Marshal(map[string]any{"from": "go", "n": 2})))
		default:
			stream, job = "runs", append(job, "workflow", "greet", "input", `{"name":"go"}`)
		}
		for range 2 {
			must(db.XAdd(ctx, &redis.XAddArgs{Stream: tidemill + stream, Values: job}).Result())
		}
	}
	for last, left := "0", len(kinds); left > 0; left-- {
		read := &redis.XReadArgs{Streams: []string{replyTo, last}, Count: 1, Block: 30 * time.Second}
		entry := must(db.XRead(ctx, read).Result())[0].Messages[0]
		last = entry.ID
		result, id := entry.Values["result"].(string), struct{ ID string }{}
		must(0, json.Unmarshal([]byte(result), &id))
		if kept := must(db.Get(ctx, tidemill+"result:"+id.ID).Result()); kept != result {
			log.Fatalf("the kept result is not the one that was sent: %s", kept)
		}
		fmt.Println(id.ID[strings.LastIndex(id.ID, "-")+1:], result)
	}
	db.Del(ctx, replyTo)
}
