{{/* The schema Job. psql and temporal-sql-tool come in different images: the (static) tool is carried over, so that
one container, one shell and one log hold the whole migration, lock included. */}}
{{- define "temporal.schemaSpec" -}}
{{- $connection := include "backend.connection" . | fromYaml }}
{{- $schema := (.Values.temporal).schema | default dict }}
{{- $placement := ((.Values.global).temporal) -}}
podFailurePolicy:
  rules:
    - {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}
    - {action: FailJob, onExitCodes: {containerName: schema, operator: In, values: [78]}}
backoffLimit: {{ kindIs "invalid" $schema.backoffLimit | ternary 3 $schema.backoffLimit }}
template:
  metadata:
    labels: {{- include "backend.labels" (list . "temporal" "schema" ((.Values.temporal).server).image) | nindent 6 }}
  spec:
    {{- include "backend.pod" (list . 999) | nindent 4 }}
    {{- with include "backend.placement" $placement }}{{ . | trim | nindent 4 }}{{ end }}
    restartPolicy: Never
    terminationGracePeriodSeconds: {{ $schema.gracePeriodSeconds | default 3600 | int }}
    initContainers:
      - name: tool
        {{- include "backend.container" (list . ((.Values.temporal).admintools).image "backend.temporal.admintools.image") | nindent 8 }}
        command: [/bin/sh, -c, 'cat "$(command -v temporal-sql-tool)" >/tools/temporal-sql-tool']
        resources: {{- toYaml ($schema.resources | default dict) | nindent 10 }}
        volumeMounts:
          - {name: tools, mountPath: /tools}
    containers:
      - name: schema
        {{- include "backend.container" (list . $schema.image "backend.temporal.schema.image") | nindent 8 }}
        command: [/bin/sh, -c]
        args: [{{ printf "%s\n%s" (.Files.Get "scripts/versions.sh") (.Files.Get "scripts/schema-setup.sh") | quote }}]
        env: {{- include "temporal.databaseEnv" . | trim | nindent 10 }}
          {{- include "temporal.schemaEnv" . | nindent 10 }}
          - {name: HISTORY_SHARDS, value: {{ (((.Values.temporal).server).config).numHistoryShards | default 4 | int | toString | quote }}}
          - {name: INTERNAL, value: {{ include "backend.internal" . | quote }}}
          - {name: ADMIN_DATABASE, value: {{ $connection.adminDatabase | quote }}}
          - {name: OWNER, value: {{ (.Values.temporalConfig).owner | default (printf "%s/%s" .Release.Namespace .Release.Name) | quote }}}
          {{- range $database := list "temporal" "visibility" }}
          {{- if include "temporal.sqlItems" (list $ $database) }}
          - {name: {{ upper $database }}_SQL, value: /sql/{{ $database }}}
          {{- end }}
          {{- end }}
        resources: {{- toYaml ($schema.resources | default dict) | nindent 10 }}
        volumeMounts:
          - {name: tools, mountPath: /tools}
          - {name: tmp, mountPath: /tmp}
          {{- with include "backend.caMount" $connection }}{{ . | trim | nindent 10 }}{{ end }}
          {{- range $database := list "temporal" "visibility" }}
          {{- if include "temporal.sqlItems" (list $ $database) }}
          - {name: sql-{{ $database }}, mountPath: /sql/{{ $database }}, readOnly: true}
          {{- end }}
          {{- end }}
    volumes:
      - {name: tools, emptyDir: {}}
      - {name: tmp, emptyDir: {}}
      {{- with include "backend.caVolume" $connection }}{{ . | trim | nindent 6 }}{{ end }}
      {{- range $database := list "temporal" "visibility" }}
      {{- with include "temporal.sqlItems" (list $ $database) }}
      - name: sql-{{ $database }}
        configMap:
          name: {{ include "temporal.sqlName" (list $ $database) }}
          items: {{- . | nindent 12 }}
      {{- end }}
      {{- end }}
{{- end }}

{{/* The files of temporal/sql-schemas as a ConfigMap volume shows them again; empty where there are none: `list $ database` */}}
{{- define "temporal.sqlItems" -}}
{{- range $path, $_ := (index . 0).Files.Glob (printf "temporal/sql-schemas/%s/versioned/*/*" (index . 1)) }}
- {key: {{ include "temporal.sqlKey" $path }}, path: {{ regexReplaceAll "^.*/versioned/" $path "" }}}
{{- end }}
{{- end }}

{{- define "temporal.sqlKey" -}}
{{ regexReplaceAll "^.*/versioned/" . "" | replace "/" "__" }}
{{- end }}

{{- define "temporal.sqlName" -}}
{{- $text := "" }}
{{- range $path, $content := (index . 0).Files.Glob (printf "temporal/sql-schemas/%s/versioned/*/*" (index . 1)) }}
{{- $text = printf "%s%s\n%s\n" $text $path $content }}
{{- end }}
{{- include "backend.name" (list (index . 0) (printf "temporal-sql-%s-%s" (index . 1) ($text | sha256sum | trunc 10)) 63) }}
{{- end }}
