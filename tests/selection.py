"""Which tests are slow, besides those that are marked so where they are written (`@pytest.mark.slow`).

`pytest -m "not slow"` is for while one works: under three minutes on two cores. It leaves out whole runs, and takes one
of the many forms of a contract (a mapping, a number of devices, an implementation, a dtype).
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHOLE_FILES = (
    "tests/experiments/benchmarks/test_benchmarks.py",
    "tests/experiments/reliability/test_chaos.py",
    "tests/experiments/studies/test_every_study.py",
    "tests/jobs/machine/test_processes.py",
    "tests/jobs/machine/test_storage.py",
    "tests/jobs/test_damage.py",
    "tests/jobs/test_monitor.py",
    "tests/jobs/test_feeding.py",
    "tests/jobs/test_nonfinite.py",
    "tests/jobs/test_parts.py",
    "tests/jobs/test_run.py",
    "tests/jobs/test_show.py",
    "tests/losses/test_properties.py",
    "tests/metrics/test_properties.py",
    "tests/test_docstrings.py",
    "tests/test_export.py",
    "tests/training/test_step.py",
)
TESTS = (
    "tests/experiments/studies/test_pairs.py::test_two_transforms_of_the_digits_agree",
    "tests/experiments/test_analyze.py::test_two_files_without_labels_sampled",
    "tests/metrics/test_analysis.py::test_standard_errors_are_those_of_many_draws",
    "tests/metrics/test_analysis.py::test_uniform_points_are_at_the_uniform_law",
    "::test_second_derivatives_are_exact",
    "tests/evaluation/test_linear_probe.py::test_converged_probe_agrees_with_scikit_learn",
    "tests/evaluation/test_linear_probe.py::test_tenfold_learning_rate_goes_as_far_in_a_tenth_of_the_steps",
    "tests/jobs/test_command_line.py::test_a_broken_image_is_named",
    "tests/jobs/sweeps/test_stack.py::test_a_run_that_fails_fails_alone",
    "tests/jobs/sweeps/test_stack.py::test_a_stack_that_is_stopped_resumes_and_ends_the_same",
    "tests/jobs/sweeps/test_stack.py::test_each_run_of_a_stack_is_the_run_alone",
    "tests/jobs/sweeps/test_stack.py::test_runs_at_different_steps_go_on_each_from_its_own",
    "tests/jobs/test_loading.py::test_an_encoder_given_from_python_is_given_again",
    "tests/jobs/test_presets.py::test_a_contrast_set_of_several_batches",
    "tests/jobs/test_presets.py::test_every_preset_takes_a_step",
    "tests/jobs/test_presets.py::test_fashion_mnist_where_it_is_prepared",
    "tests/jobs/test_presets.py::test_mean_and_variance_of_the_negatives_are_logged_without_the_distribution",
    "tests/jobs/test_presets.py::test_other_losses_train_by_name",
    "tests/jobs/test_presets.py::test_what_is_learnt_of_a_loss_is_logged_and_resumed",
    "tests/jobs/test_transfer.py::test_another_data_set_from_the_command_line",
    "tests/jobs/test_transfer.py::test_on_the_runs_own_data_the_scores_are_the_runs",
    "tests/jobs/test_unlabelled.py::test_a_folder_without_labels_is_trained_on_and_measured",
    "tests/jobs/test_unlabelled.py::test_a_labelled_set_scores_a_finished_run_without_training",
    "tests/jobs/test_unlabelled.py::test_the_encoder_in_hand_is_measured_without_labels",
    "tests/jobs/test_unlabelled.py::test_the_labelled_set_is_both_bank_and_test",
    "tests/jobs/test_weights.py::test_a_file_of_another_network_is_one_line",
    "tests/jobs/test_weights.py::test_a_run_starts_from_a_file",
    "tests/jobs/test_weights.py::test_another_file_is_refused_where_the_run_goes_on",
    "tests/jobs/test_workdir.py::test_a_folder_of_images_of_two_sizes_in_one_split_is_evaluated",
    "tests/jobs/test_workdir.py::test_a_name_with_dollars_is_drawn_as_it_is",
    "tests/jobs/test_workdir.py::test_a_picture_that_cannot_be_drawn_costs_the_picture_alone",
    "tests/jobs/test_workdir.py::test_a_run_counts_beyond_32_bits",
    "tests/jobs/test_workdir.py::test_other_images_than_the_run_began_with_are_refused",
    "tests/jobs/test_workdir.py::test_what_only_evaluates_may_change_and_is_evaluated_again",
    "tests/losses/test_devices.py::test_gradient_of_replicated_parameters",
    "tests/losses/test_implementations.py::test_memory_is_linear",
    "tests/losses/test_values.py::test_gradients",
    "tests/pairwise/test_blockwise.py::test_equals_one_device_under_every_mapping",
    "tests/pairwise/test_closures.py::test_a_traced_integer_inside_a_ring_and_outside_it",
    "tests/test_docs.py::test_the_encoder_in_hand",
    "tests/test_explicit_axes.py::test_every_loss",
    "tests/test_package.py::test_functions_need_jax_numpy_and_scipy_alone",
    "tests/test_readme.py::test_other_jobs_are_accepted",
    "tests/test_readme.py::test_the_first_job",
    "tests/theory/test_info_nce.py::test_least_limit_is_the_energy_of_the_uniform_law",
    "tests/theory/test_info_nce.py::test_limit_is_that_of_large_batches",
    "tests/theory/test_info_nce.py::test_negative_gradient_moves_embeddings_as_the_loss_does",
    "tests/theory/test_minima.py::test_minimum_is_attained_and_not_undercut",
    "tests/training/test_create.py::test_a_loop_that_starts_from_zeros_trains_on_many_devices",
    "tests/training/test_create.py::test_devices_change_nothing",
    "tests/training/test_create.py::test_own_numbers_are_those_of_the_whole_batch",
    "tests/training/test_create.py::test_pieces_change_nothing_without_normalisation",
    "tests/training/test_estimator.py::test_devices_and_pieces_change_nothing",
    "tests/training/test_estimator.py::test_resumed_equals_uninterrupted",
    "tests/training/test_gradient.py::test_a_loop_over_pieces_is_the_same_as_one_piece_after_the_other",
    "tests/training/test_gradient.py::test_any_number_of_devices_with_batch_normalisation",
    "tests/training/test_gradient.py::test_pieces_give_the_gradient_of_the_whole",
)
# Forms that no fast test has: `shard_map` on two or four devices, float32 and blockwise stay.
_SLOW_FORMS = re.compile(
    r"\[.*\b(pmap|vmap|shard_map_unchecked|unchecked shard_map|shard_map-[18]|ring|float16|bfloat16)\b"
    r"|::test_authors_values\[.*float32"
)
# The rows of the losses' table that are forms of the row of another: they keep their oracle and the authors' values.
_VARIANTS = re.compile(
    r"tests/losses/(?!.*::test_(oracle|authors_values)\[).*\[(.*-)?"
    r"(kcl_(?!gaussian\b)\w+|multi_view_info_nce_pairwise|multi_view_dhel_mean|info_nce_based_within)\b"
)
# Of these tests only the forms that fit are fast: the cheapest ones that would tell.
FORMS = {
    "tests/experiments/test_analyze.py::test_every_picture_can_be_drawn": "collapsed|dollars",
    "tests/experiments/papers/test_tables.py::test_a_table_is_made": "(lee_figure4|koromilas_properties)-.*",
    "tests/experiments/papers/test_tables.py::test_every_scale_is_sweeps": ".*-minutes|lee_table4-paper",
    "tests/jobs/test_embeddings.py::test_an_uncompressed_npz_is_mapped": "<f4-C|>f4-F",
    "tests/jobs/test_loading.py::test_an_encoder_of_ones_own_by_its_name": ".*:Encoder",
    "tests/metrics/test_analysis.py::test_similarities_are_those_of_all_pairs": "float32-(twos|of many.*|one.*)",
    "tests/experiments/studies/test_precision.py::test_errors_are_within_the_bounds": "info_nce|kcl",
    "tests/experiments/studies/test_rounding.py::test_every_implementation_rounds_the_same_products": "info_nce|simclr",
    "tests/losses/test_closures.py::test_blockwise": "info_nce_based-jit_inside|kcl-jit_outside",
    "tests/losses/test_closures.py::test_ring": "kcl",
    "tests/losses/test_devices.py::test_loss_and_embedding_gradients_equal_the_single_device_ones": (
        ".*-shard_map-2|(moco|sogclr)-shard_map-8"
    ),
    "tests/losses/test_edges.py::test_an_anchor_without_negatives_is_finite": (
        "simclr|dhel_sum|dcl_weighted|sup_con|moco|sogclr|siglip|kcl_gaussian|align_uniform|multi_view_dhel"
    ),
    "tests/losses/test_edges.py::test_finite_and_right_at_the_edges": ".*-8-float32",
    "tests/losses/test_ids.py::test_ids_of_any_dtype_and_lists_are_right_where_they_fit": "u?int64-.*|u?int8-dense",
    "tests/losses/test_implementations.py::test_every_implementation_gives_the_same_values_and_gradients": (
        "(simclr|kcl_gaussian)-blockwise"
    ),
    "tests/losses/test_precision.py::test_every_loss_takes_every_precision": "info_nce|dhel_mean|sup_con|moco",
    "tests/losses/test_precision.py::test_every_product_has_it": (
        "(simclr|info_nce|kcl_gaussian|spectral)-(dense|blockwise|moments)"
    ),
    "tests/losses/test_shared_products.py::test_on_one_device": "1-(simclr|info_nce|dhel)",
    "tests/losses/test_shared_products.py::test_on_two_devices": "simclr|dhel",
    "tests/losses/test_scale_near_zero.py::test_an_infinite_temperature_has_a_gradient_of_zero": "(simclr|dhel_sum)-.*",
    "tests/losses/test_scale_near_zero.py::test_the_gradient_is_zero_to_rounding": "(simclr|siglip)-dense",
    "tests/losses/test_values.py::test_authors_values": ".*-1-m16-float64-.*",
    "tests/losses/test_values.py::test_hyperparameters_may_be_traced_and_swept": (
        "simclr|dcl_weighted|dhel_mean|sogclr|vrns|siglip|kcl_gaussian|align_uniform|info_nce_based"
    ),
    "tests/losses/test_values.py::test_oracle": ".*-33-17",
    "tests/models/test_convolution.py::test_every_form_is_the_convolution_with_its_gradients": (
        "[37]-[12]-size[036]-product|3-2-size[14]-convolution"
    ),
    "tests/models/test_functional.py::test_step_is_the_same_on_any_number_of_devices": (
        "(norm and dropout|linen as encoder|own state)-checked shard_map-4"
    ),
    "tests/models/test_resnet.py::test_parameter_count_is_torchvisions_without_the_classifier": "resnet(18-small|50).*",
    "tests/models/test_torchvision.py::test_names_shapes_and_dtypes_are_torchvisions": "resnet18",
    "tests/models/test_torchvision.py::test_out_and_in_again_is_the_same_network": "plain-resnet10",
    "tests/models/test_vit.py::test_parameter_count_is_deits_without_its_classifier_and_class_token": "vit_tiny-.*",
    "tests/pairwise/test_blockwise.py::test_equals_dense": "one shift-9-9-4-.*|a shift for each row-10-7-3-.*",
    "tests/pairwise/test_closures.py::test_anchors_that_are_the_candidates": "jit_first|scanned_last",
    "tests/pairwise/test_closures.py::test_blockwise_equals_dense": (
        "(integer|key|float)-jit_first|integer-(jit_last|vmapped_first|scanned_first)"
    ),
    "tests/pairwise/test_closures.py::test_ring_equals_dense": "(integer|key)-shard_map0?",
    "tests/pairwise/test_fused.py::test_kernels_give_the_sums_and_gradients_of_float64": (
        "highest-.*|high-both|BF16_BF16_F32-rows"
    ),
    "tests/pairwise/test_moments.py::test_first_and_second_derivatives": "shuffled|often",
    "tests/pairwise/test_ring.py::test_equals_one_device": "more candidates.*",
    "tests/pairwise/test_ring.py::test_equals_one_device_under_every_mapping": "logsumexp-shard_map",
    "tests/pairwise/test_vmap.py::test_sets_cost_what_they_compare": "(rows alone|views)-(4-1024|64-8)-.*",
    "tests/test_explicit_axes.py::test_a_function_that_closes_over_arrays_of_the_mesh": "sharded-.*-mesh set",
    "tests/theory/test_info_nce.py::test_negative_gradient_is_the_derivative": "0.1-33|1.0-2",
    "tests/training/test_estimator.py::test_averages_are_kept_by_instance": "sogclr_in_sets-.*",
    "tests/training/test_regime.py::test_distribution_counts_each_set_once": "shard_map-4-8",
    "tests/training/test_regime.py::test_each_device_keeps_the_values_of_its_own_instances": "4-12",
    "tests/training/test_regime.py::test_labels_and_many_views": "8-24",
    "tests/training/test_regime.py::test_values_and_gradients": "shard_map-(2-4|4-8)",
}


def is_slow(nodeid: str) -> bool:
    """Whether the test of this id is left out by `-m "not slow"`."""
    if nodeid.startswith(WHOLE_FILES) or any(name in nodeid for name in TESTS):
        return True
    test, _, form = nodeid.removesuffix("]").partition("[")
    if test in FORMS:
        return not re.fullmatch(FORMS[test], form) or bool(_VARIANTS.match(nodeid))
    return bool(_SLOW_FORMS.search(nodeid) or _VARIANTS.match(nodeid))
