standard_train_fold=['v-0', 'gone']
standard_valid_fold=['v_1']
standard_test_fold=['v2']
