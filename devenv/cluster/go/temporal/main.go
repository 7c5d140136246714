// One binary for two commands, told apart by the name it is called by: temporal-server and temporal-sql-tool.
//
// PostgreSQL is the only SQL plugin on offer, as everything here is made for it.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/headers"
	"go.temporal.io/server/common/log"
	_ "go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	"go.temporal.io/server/temporal"
	"go.temporal.io/server/tools/sql"
)

func main() {
	if filepath.Base(os.Args[0]) == "temporal-sql-tool" {
		if sql.RunTool(os.Args) != nil {
			os.Exit(1)
		}
		return
	}
	if err := server().Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "temporal-server:", err)
		os.Exit(1)
	}
}

func server() *cli.App {
	configFile := &cli.StringFlag{
		Name:    "config-file",
		Usage:   "configuration `FILE`; without it the built-in template, filled from the environment",
		EnvVars: []string{config.EnvKeyConfigFile},
	}
	services := &cli.StringSliceFlag{
		Name:    "service",
		Aliases: []string{"svc"},
		Usage:   "service to run, repeatable",
		Value:   cli.NewStringSlice(temporal.DefaultServices...),
		EnvVars: []string{"TEMPORAL_SERVICES"},
	}
	allowNoAuth := &cli.BoolFlag{
		Name:    "allow-no-auth",
		Usage:   "say that running without an authorizer is meant",
		EnvVars: []string{config.EnvKeyAllowNoAuth},
	}
	return &cli.App{
		Name:    "temporal-server",
		Usage:   "Temporal server with PostgreSQL",
		Version: headers.ServerVersion,
		Flags:   []cli.Flag{configFile, allowNoAuth},
		Commands: []*cli.Command{
			{Name: "start", Usage: "run the services until interrupted", Flags: []cli.Flag{services}, Action: start},
			{Name: "render-config", Usage: "print the configuration as the server reads it", Action: renderConfig},
			{
				Name:      "validate-dynamic-config",
				Usage:     "check dynamic configuration files",
				ArgsUsage: "FILE ...",
				Action:    validateDynamicConfig,
			},
		},
	}
}

func load(c *cli.Context) (*config.Config, error) {
	if path := c.String("config-file"); path != "" {
		return config.Load(config.WithConfigFile(path))
	}
	return config.Load(config.WithEmbedded())
}

func start(c *cli.Context) error {
	cfg, err := load(c)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	logger := log.NewZapLogger(log.BuildZapLogger(cfg.Log))
	authorizer, err := authorization.GetAuthorizerFromConfig(&cfg.Global.Authorization)
	if err != nil {
		return fmt.Errorf("authorizer: %w", err)
	}
	if authorization.IsNoopAuthorizer(authorizer) && !c.Bool("allow-no-auth") {
		logger.Warn("no authorizer is configured: whoever reaches the frontend may do everything")
	}
	claimMapper, err := authorization.GetClaimMapperFromConfig(&cfg.Global.Authorization, logger)
	if err != nil {
		return fmt.Errorf("claim mapper: %w", err)
	}
	audienceMapper, err := authorization.GetAudienceMapperFromConfig(&cfg.Global.Authorization)
	if err != nil {
		return fmt.Errorf("audience mapper: %w", err)
	}
	running, err := temporal.NewServer(
		temporal.ForServices(c.StringSlice("service")),
		temporal.WithConfig(cfg),
		temporal.WithLogger(logger),
		temporal.InterruptOn(temporal.InterruptCh()),
		temporal.WithAuthorizer(authorizer),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claimMapper }),
		temporal.WithAudienceGetter(func(*config.Config) authorization.JWTAudienceMapper { return audienceMapper }),
	)
	if err != nil {
		return err
	}
	return running.Start()
}

func renderConfig(c *cli.Context) error {
	cfg, err := load(c)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	fmt.Println(cfg.String())
	return nil
}

func validateDynamicConfig(c *cli.Context) error {
	wrong := 0
	for _, path := range c.Args().Slice() {
		contents, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found := dynamicconfig.LoadYamlFile(contents)
		for _, problem := range found.Errors {
			fmt.Printf("%s: error: %v\n", path, problem)
		}
		for _, problem := range found.Warnings {
			fmt.Printf("%s: warning: %v\n", path, problem)
		}
		wrong += len(found.Errors)
	}
	if wrong > 0 {
		return fmt.Errorf("%d errors", wrong)
	}
	return nil
}
