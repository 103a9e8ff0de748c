// Package logmill is what the example programs share: the command line, the connection, errors with their reasons,
// trying again (this file), and being a member of a group (member.go).
package logmill

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "logmill.example/gen/logmillv1"
)

const (
	// CallTimeout is the deadline of a call, and how long a stream may owe an answer.
	CallTimeout = 10 * time.Second
	// GiveUpAfter is how long a node that is away is waited for.
	GiveUpAfter = 30 * time.Second

	connectTimeout = 5 * time.Second
	firstPause     = 50 * time.Millisecond
	longestPause   = 2 * time.Second
)

// grpcWords stand in front of what the node says to people.
var grpcWords = regexp.MustCompile(`(rpc error: code = \w+|connection error:) desc = `)

var (
	program = filepath.Base(os.Args[0])
	server  = flag.String("server", "http://127.0.0.1:7070", "the `URL` that the node printed when it started")
	// address is that of the server, as HOST:PORT.
	address string
)

// Limit makes the option -n, of which the value is 0 if it is not given.
func Limit(usage string) *int {
	limit := new(int)
	flag.Func("n", usage, func(text string) (err error) {
		if *limit, err = strconv.Atoi(text); err != nil || *limit < 1 {
			err = errors.New("it is no whole number above 0")
		}
		return err
	})
	return limit
}

// Args reads the command line and gives its operands, of which there have to be so many. Options may stand anywhere,
// not only in front of the operands as package flag would have it.
func Args(usage string, operands int) []string {
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: %s\n\noptions:\n", usage)
		flag.PrintDefaults()
	}
	// What package flag says by itself does not begin with the program's name.
	flag.CommandLine.Init(program, flag.ContinueOnError)
	flag.CommandLine.SetOutput(io.Discard)
	var args []string
	for rest := os.Args[1:]; ; rest = flag.Args()[1:] {
		err := flag.CommandLine.Parse(rest)
		if errors.Is(err, flag.ErrHelp) {
			flag.CommandLine.SetOutput(os.Stdout)
			flag.Usage()
			os.Exit(0)
		}
		Check(err == nil, "%v", err)
		if flag.NArg() == 0 {
			break
		}
		args = append(args, flag.Arg(0))
	}
	Check(len(args) == operands, "%d operands were given, not %d", len(args), operands)
	address = strings.TrimSuffix(strings.TrimPrefix(*server, "http://"), "/")
	host, port, _ := net.SplitHostPort(address)
	_, err := strconv.ParseUint(port, 10, 16)
	Check(host != "" && err == nil, "%q is not the address of a node: give it as http://HOST:PORT", *server)
	return args
}

// Check ends the program with how it is to be called, unless it is called so.
func Check(isRight bool, format string, args ...any) {
	if !isRight {
		fmt.Fprintf(os.Stderr, program+": "+format+"\n", args...)
		flag.CommandLine.SetOutput(os.Stderr)
		flag.Usage()
		os.Exit(2)
	}
}

// Run connects, looks whether the topics are there, and does the program's work until a signal comes: its context is
// done then. An error becomes one sentence and exit code 1.
func Run(topics []string, work func(context.Context, *grpc.ClientConn) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	conn, err := connect(ctx)
	for _, topic := range topics {
		if err == nil {
			_, err = DescribeTopic(ctx, conn, topic)
		}
	}
	if err == nil {
		err = work(ctx, conn)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", program, grpcWords.ReplaceAllString(err.Error(), ""))
		os.Exit(1)
	}
}

func connect(ctx context.Context) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// gRPC's own pauses grow to two minutes, in which a node that is back would not be noticed.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: longestPause},
			MinConnectTimeout: connectTimeout,
		}),
		// Notices a node that is gone without a word, while a stream is open.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
		// A record alone may be larger than the 4 MB that gRPC takes.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
	)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if _, err = pb.NewNodeServiceClient(conn).DescribeNode(ctx, &pb.DescribeNodeRequest{}); err != nil {
		err = fmt.Errorf("no Logmill node answers at %s; start one with `logmill serve`, or correct --server: %w", *server, err)
	}
	return conn, err
}

// DescribeTopic describes a topic, and fails if it is not there.
func DescribeTopic(ctx context.Context, conn *grpc.ClientConn, topic string) (*pb.DescribeTopicResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	return pb.NewTopicServiceClient(conn).DescribeTopic(ctx, &pb.DescribeTopicRequest{Name: topic})
}

// FromReply makes of an error within a reply what a call would have failed with; nil if there is none.
func FromReply(reply *pb.Error) error {
	if reply == nil {
		return nil
	}
	info := &errdetails.ErrorInfo{Domain: "logmill", Reason: reply.Reason, Metadata: reply.Metadata}
	failure, err := status.New(codes.Code(reply.Code), reply.Message).WithDetails(info)
	if err != nil {
		return err
	}
	return failure.Err()
}

// Reason is why a call failed, one of docs/errors.md; empty if it was not the node that said so.
func Reason(err error) string {
	return info(err).GetReason()
}

func info(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

// mayPass says whether the same may succeed later without anybody changing anything. Everything that these programs
// send may be sent again: records and steps are numbered, and a commit changes nothing the second time.
func mayPass(err error) bool {
	switch info := info(err); info.GetReason() {
	// The same list as in docs/errors.md, "May it be sent again?"
	case "DISK_FULL", "INTERNAL_FAULT", "IO_FAILED", "MEMBER_UNKNOWN", "NODE_CLOSING", "OUTCOME_UNKNOWN",
		"PARTITION_REOPENING", "PRECEDING_FAILED", "TRANSACTION_ENDING", "UNIT_UNDECLARED":
		return true
	case "LIMIT_EXCEEDED":
		switch info.Metadata["limit"] {
		case "max_batch_bytes", "max_records_per_request", "max_headers_per_request", "max_commit_partitions":
			return false // what is too large stays so
		}
		return true
	case "": // the connection, a deadline, or the node has ended the stream
		_, isOfCall := status.FromError(err)
		return isOfCall || errors.Is(err, io.EOF)
	}
	return false
}

// Retry attempts something until it succeeds, fails in a way that will not pass, or has failed for GiveUpAfter. An
// attempt that gets somewhere calls progress: a failure after that is the first one again. What it gives up is given up
// for good, also by a Retry around it.
func Retry(ctx context.Context, attempt func(progress func()) error) error {
	var failing time.Time
	pause := firstPause
	progress := func() { failing, pause = time.Time{}, firstPause }
	for {
		err := attempt(progress)
		if err == nil || !mayPass(err) {
			return err
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		if time.Since(failing) >= GiveUpAfter {
			return fmt.Errorf("given up after %v: %v", GiveUpAfter, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted while the node was away: %v", err)
		// Half of it by chance, lest all clients come back at the same moment.
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, longestPause)
	}
}
